-- Files are deleted with the last message that has them. Which messages (kinds 1 and 2) have which files; a deletion removes the rows of
-- its message. Filled by a trigger, so also for replicas of the release before.
CREATE TABLE file_uses (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    file_id uuid NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (partition, room_id, file_id, seq)
);
-- Without the partition, so that no search by a message fits the primary key, and none by a file fits this index.
CREATE INDEX file_uses_of_message ON file_uses (room_id, seq);

-- The files of deleted messages, until it is certain that the file service has deleted them or that another message has them.
CREATE TABLE files_to_drop (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    file_id uuid NOT NULL,
    PRIMARY KEY (partition, room_id, file_id)
);

-- Returns the files in the body of a message. They are cut out as text, because the JSON functions of Postgres reject \u0000. The log
-- writes the files last and the id of each file first; a quote within a text has a backslash before it.
CREATE FUNCTION files_of_body(body text) RETURNS SETOF uuid LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT (found.ids)[1]::uuid
    FROM regexp_matches(substr(body, strpos(body, ',"files":[')), '[[,][{]"id":"([0-9a-f-]{36})"', 'g') AS found (ids)
    WHERE strpos(body, ',"files":[') > 0
$$;

CREATE FUNCTION note_file_uses() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO message.file_uses (partition, room_id, file_id, seq)
    SELECT NEW.partition, NEW.room_id, f.id, NEW.seq FROM message.files_of_body(NEW.body) AS f (id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION release_files() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
    WITH released AS (
        DELETE FROM message.file_uses u WHERE u.room_id = NEW.room_id AND u.seq = NEW.seq RETURNING u.partition, u.room_id, u.file_id
    )
    INSERT INTO message.files_to_drop (partition, room_id, file_id)
    SELECT r.partition, r.room_id, r.file_id FROM released r
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

-- Decides about a file of a deleted message: returns true if no message of the room has it, and marks it as deleted in all messages of
-- the room; otherwise it stays. A file that is marked is not judged again.
CREATE FUNCTION drop_file(partition_ integer, room uuid, file uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    used record;
BEGIN
    -- Each append holds this lock until its commit. So a message that has the file is either visible below, or appended after the mark,
    -- and every answer with it, the first included, shows the file as deleted.
    PERFORM 1 FROM room_heads h WHERE h.partition = partition_ AND h.room_id = room FOR UPDATE;
    IF EXISTS (SELECT 1 FROM deleted_files d WHERE d.partition = partition_ AND d.room_id = room AND d.file_id = file) THEN
        RETURN true;
    END IF;
    SELECT u.* INTO used FROM file_uses u WHERE (u.partition, u.room_id, u.file_id) >= (partition_, room, file)
    ORDER BY u.partition, u.room_id, u.file_id LIMIT 1;
    IF used.partition = partition_ AND used.room_id = room AND used.file_id = file THEN
        DELETE FROM files_to_drop t WHERE t.partition = partition_ AND t.room_id = room AND t.file_id = file;
        RETURN false;
    END IF;
    INSERT INTO deleted_files (partition, room_id, file_id) VALUES (partition_, room, file) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- The events so far are read while appends continue. Only those that were appended meanwhile are read under the lock of the trigger.
CREATE TABLE file_uses_up_to AS SELECT p.partition, p.head FROM partitions p;
INSERT INTO file_uses (partition, room_id, file_id, seq)
SELECT e.partition, e.room_id, f.id, e.seq FROM events e CROSS JOIN LATERAL files_of_body(e.body) AS f (id)
WHERE e.kind < 3 AND strpos(e.body, ',"files":[') > 0
ON CONFLICT DO NOTHING;

-- In the order in which a change of a message locks the two tables.
CREATE TRIGGER events_note_file_uses AFTER INSERT ON events
FOR EACH ROW WHEN (NEW.kind < 3 AND strpos(NEW.body, ',"files":[') > 0) EXECUTE FUNCTION note_file_uses();
CREATE TRIGGER message_state_release_files AFTER INSERT OR UPDATE OF deleted_at ON message_state
FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION release_files();

SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
INSERT INTO file_uses (partition, room_id, file_id, seq)
SELECT e.partition, e.room_id, f.id, e.seq
FROM partitions p LEFT JOIN file_uses_up_to u ON u.partition = p.partition
JOIN events e ON e.partition = p.partition AND e.position > coalesce(u.head, 0)
CROSS JOIN LATERAL files_of_body(e.body) AS f (id)
WHERE e.kind < 3 AND strpos(e.body, ',"files":[') > 0
ON CONFLICT DO NOTHING;
DROP TABLE file_uses_up_to;
-- Messages that are deleted but not erased yet.
WITH released AS (
    DELETE FROM file_uses u USING message_state s
    WHERE s.deleted_at IS NOT NULL AND u.room_id = s.room_id AND u.seq = s.seq RETURNING u.partition, u.room_id, u.file_id
)
INSERT INTO files_to_drop (partition, room_id, file_id) SELECT DISTINCT r.partition, r.room_id, r.file_id FROM released r
ON CONFLICT DO NOTHING;
RESET enable_seqscan;
RESET enable_hashjoin;
RESET enable_mergejoin;

-- As before, with the tables of files. Takes from every role except the owner what the statements of the service do not need: default
-- privileges grant more. Roles that append may erase. Each `migrate` runs it, so that a new, an upgraded and a restored database end
-- with the same privileges.
CREATE OR REPLACE FUNCTION restrict_privileges() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT c.relname AS name, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
            string_agg(DISTINCT acl.privilege_type, ', ') FILTER (WHERE acl.privilege_type <> ALL (needed.privileges)) AS excess,
            bool_or(acl.privilege_type = 'INSERT') AND acl.grantee <> 0 AS appends
        FROM (VALUES
            ('events', ARRAY['SELECT', 'INSERT']),
            ('deleted_files', ARRAY['SELECT', 'INSERT']),
            ('log', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('partitions', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('room_heads', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('room_members', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
            ('message_state', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('message_edits', ARRAY['SELECT', 'INSERT']),
            ('change_runs', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('file_uses', ARRAY['SELECT', 'INSERT', 'DELETE']),
            ('files_to_drop', ARRAY['SELECT', 'INSERT', 'DELETE'])
        ) AS needed (name, privileges)
        JOIN pg_class c ON c.relnamespace = 'message'::regnamespace AND c.relname = needed.name,
        LATERAL aclexplode(c.relacl) AS acl
        WHERE acl.grantee <> c.relowner
        GROUP BY c.relname, acl.grantee
    LOOP
        IF held.excess IS NOT NULL THEN
            EXECUTE format('REVOKE %s ON message.%I FROM %s CASCADE', held.excess, held.name, held.grantee);
        END IF;
        IF held.name = 'events' AND held.appends THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION message.erase(integer, uuid, bigint[]) TO %s', held.grantee);
        END IF;
    END LOOP;
END
$$;
SELECT restrict_privileges();

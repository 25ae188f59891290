-- Unread messages are counted by ordinals: the number of messages and files of a room up to an event. Ordinals begin with this
-- migration; earlier events have none. Changes of messages have none either, because they take no number.
ALTER TABLE events ADD COLUMN ordinal bigint;
ALTER TABLE room_heads
    -- The newest ordinal.
    ADD COLUMN messages bigint NOT NULL DEFAULT 0,
    -- The newest seq before the first ordinal; null while a room of the release before has no ordinal.
    ADD COLUMN counted_from bigint,
    -- When the newest message or file was appended; null without one that has an ordinal.
    ADD COLUMN last_message_at bigint;
ALTER TABLE room_heads ALTER COLUMN counted_from SET DEFAULT 0;

-- The read marker and the notifications of a member. read_seq and read_ordinal are null until the first mark of a member whom no
-- event has added: the marker then stands at since_seq, or where the ordinals begin if that is higher.
ALTER TABLE room_members
    ADD COLUMN read_seq bigint,
    ADD COLUMN read_ordinal bigint,
    ADD COLUMN read_at bigint,
    -- When the member last marked messages as unread. Marks that a gateway received before are late.
    ADD COLUMN unread_at bigint,
    ADD COLUMN level smallint NOT NULL DEFAULT 0,
    ADD COLUMN level_until bigint;
CREATE INDEX room_members_user ON room_members (user_id);

-- The ordinal of a deleted message. A trigger sets it, so also for replicas of the release before.
ALTER TABLE message_state ADD COLUMN deleted_ordinal bigint;
CREATE INDEX message_state_deleted ON message_state (partition, room_id, deleted_ordinal) WHERE deleted_ordinal IS NOT NULL;
CREATE FUNCTION note_deleted_ordinal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    original record;
BEGIN
    SELECT e.* INTO original FROM message.events e WHERE (e.partition, e.room_id, e.seq) >= (NEW.partition, NEW.room_id, NEW.seq)
    ORDER BY e.partition, e.room_id, e.seq LIMIT 1;
    IF original.partition = NEW.partition AND original.room_id = NEW.room_id AND original.seq = NEW.seq THEN
        NEW.deleted_ordinal := original.ordinal;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER message_state_note_deleted_ordinal BEFORE INSERT OR UPDATE OF deleted_at ON message_state
FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION note_deleted_ordinal();

-- Returns the ordinal of the newest event up to a seq that is no change; 0 without an ordinal. `number` is at most the room's head.
CREATE FUNCTION ordinal_at(partition_ integer, room uuid, number bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    item CONSTANT bigint := (SELECT r.high - 1 FROM item_ranges(partition_, room, 0, number + 1, 1, true) r LIMIT 1);
    found_ record;
BEGIN
    IF item IS NULL THEN
        RETURN 0;
    END IF;
    SELECT e.* INTO found_ FROM events e WHERE (e.partition, e.room_id, e.seq) >= (partition_, room, item)
    ORDER BY e.partition, e.room_id, e.seq LIMIT 1;
    RETURN coalesce(found_.ordinal, 0);
END
$$;

-- Returns the ordinal of a member's marker.
CREATE FUNCTION ordinal_of(m room_members, counted_from bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN m.read_ordinal IS NOT NULL THEN m.read_ordinal
        WHEN counted_from >= m.since_seq THEN 0
        ELSE ordinal_at(m.partition, m.room_id, m.since_seq) END
$$;

-- Returns the number of messages above a marker that are not deleted.
CREATE FUNCTION unread_above(partition_ integer, room uuid, messages_ bigint, ordinal_ bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
    IF messages_ <= ordinal_ THEN
        RETURN 0;
    END IF;
    RETURN messages_ - ordinal_ - (SELECT count(*) FROM message_state s
        WHERE s.partition = partition_ AND s.room_id = room AND s.deleted_ordinal > ordinal_);
END
$$;

-- Moves read markers to these seqs, or to the room's head if that is lower; `back`: also backwards, as unread. A mark that a gateway
-- received `age` milliseconds ago has no effect if the member has marked messages as unread since. Returns the marker that stands for
-- each mark of a member, and whether the room has at most `few` members. The order of the rows prevents deadlocks; other
-- transactions lock them in other orders, and wait at most as long as an append.
CREATE FUNCTION mark_read(
    partitions_ integer[], rooms uuid[], users uuid[], seqs bigint[], ages bigint[], backs boolean[], few integer
) RETURNS TABLE (mark bigint, stands_at bigint, since bigint, unread bigint, moved boolean, small boolean, passed bigint) LANGUAGE plpgsql VOLATILE
SET lock_timeout = '100ms' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    now_ CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    m record;
    member room_members;
    head record;
    target bigint;
    ordinal_ bigint;
    counted uuid;
BEGIN
    FOR m IN
        SELECT * FROM unnest(partitions_, rooms, users, seqs, ages, backs) WITH ORDINALITY
            AS k (partition, room_id, user_id, seq, age, back, n)
        ORDER BY k.partition, k.room_id, k.user_id, k.n
    LOOP
        SELECT r.* INTO member FROM room_members r
        WHERE r.partition = m.partition AND r.room_id = m.room_id AND r.user_id = m.user_id FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT h.seq, h.messages, h.counted_from, h.closed INTO head FROM room_heads h
        WHERE h.partition = m.partition AND h.room_id = m.room_id;
        CONTINUE WHEN NOT FOUND OR head.closed;

        mark := m.n;
        stands_at := least(coalesce(member.read_seq, greatest(member.since_seq, coalesce(head.counted_from, head.seq))), head.seq);
        ordinal_ := ordinal_of(member, head.counted_from);
        since := member.read_at;
        passed := 0;
        target := least(m.seq, head.seq);
        moved := m.back OR (target > stands_at AND (now_ - m.age < member.unread_at) IS NOT TRUE);
        IF moved THEN
            stands_at := target;
            passed := unread_above(m.partition, m.room_id, head.messages, ordinal_);
            ordinal_ := CASE WHEN target = head.seq THEN head.messages ELSE ordinal_at(m.partition, m.room_id, target) END;
            since := now_;
            UPDATE room_members r
            SET read_seq = target, read_ordinal = ordinal_, read_at = now_, unread_at = CASE WHEN m.back THEN now_ ELSE r.unread_at END
            WHERE r.partition = m.partition AND r.room_id = m.room_id AND r.user_id = m.user_id;
        END IF;
        unread := unread_above(m.partition, m.room_id, head.messages, ordinal_);
        passed := greatest(0, passed - unread);
        IF counted IS DISTINCT FROM m.room_id THEN
            counted := m.room_id;
            small := few >= (SELECT count(*) FROM (
                SELECT 1 FROM room_members r WHERE r.partition = m.partition AND r.room_id = m.room_id LIMIT few + 1) f);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- As append_events before, which its callers of the release before still use, with ordinals. A new name, because the result has one
-- more column.
CREATE FUNCTION append_batch(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint,
    visibilities boolean[], grants text
) RETURNS TABLE (
    epoch uuid, fresh boolean, hidden boolean, event_position bigint, event_seq bigint,
    first_id uuid, first_kind smallint, first_body text, first_created_at bigint, event_ordinal bigint
) LANGUAGE plpgsql VOLATILE
SET lock_timeout = '100ms' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;

    RETURN QUERY
    WITH judged AS (
        SELECT b.*, p.head, coalesce(h.seq, 0) AS room_head, coalesce(h.messages, 0) AS room_messages,
            coalesce(h.private, false) AS room_private,
            e.position AS first_position, e.seq AS first_seq, e.id AS first_id, e.kind AS first_kind, e.body AS first_body,
            e.created_at AS first_created_at, e.ordinal AS first_ordinal,
            coalesce(h.closed, (SELECT l.format FROM log l) >= 2)
            OR coalesce(bool_or(b.closes AND e.position IS NULL) OVER (
                PARTITION BY b.room_id ORDER BY b.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false)
            -- A subquery with LIMIT is never hashed, and runs for private rooms only.
            OR CASE WHEN h.private AND b.kind <> 3 THEN (
                SELECT false FROM room_members m
                WHERE m.partition = b.partition AND m.room_id = b.room_id AND m.user_id = b.sender_id LIMIT 1) IS NULL
                ELSE false END AS hidden
        FROM unnest(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing, visibilities) WITH ORDINALITY
            AS b (partition, room_id, kind, id, sender_id, client_id, body, closes, private, n)
        JOIN partitions p ON p.partition = b.partition
        LEFT JOIN room_heads h ON h.partition = b.partition AND h.room_id = b.room_id
        -- Sought in the order of events_identity, which no other index has: by equality alone it is also found in that of a room's
        -- numbers, which is narrower, and each append could read all of its room.
        LEFT JOIN LATERAL (
            SELECT * FROM events i
            WHERE (i.partition, i.room_id, i.sender_id, i.client_id) >= (b.partition, b.room_id, b.sender_id, b.client_id)
            ORDER BY i.partition, i.room_id, i.sender_id, i.client_id LIMIT 1
        ) e ON e.partition = b.partition AND e.room_id = b.room_id AND e.sender_id = b.sender_id AND e.client_id = b.client_id
    ), numbered AS (
        SELECT j.*, j.first_position IS NULL AND NOT j.hidden AS fresh,
            j.head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.hidden) OVER (PARTITION BY j.partition ORDER BY j.n) AS position,
            j.room_head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.hidden) OVER of_room AS seq,
            j.room_messages + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.hidden AND j.kind < 3) OVER of_room AS ordinal
        FROM judged j WINDOW of_room AS (PARTITION BY j.partition, j.room_id ORDER BY j.n)
    ), inserted AS (
        INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at, ordinal)
        SELECT partition, position, room_id, seq, kind, id, sender_id, client_id, body, created, ordinal FROM numbered WHERE fresh
    ), moved AS (
        UPDATE partitions p SET head = f.head
        FROM (SELECT partition, max(position) AS head FROM numbered WHERE fresh GROUP BY partition) f WHERE p.partition = f.partition
    ), moved_rooms AS (
        INSERT INTO room_heads AS h (partition, room_id, seq, closed, private, messages, last_message_at)
        SELECT partition, room_id, max(seq), bool_or(closes), coalesce(bool_or(private), bool_or(room_private)),
            max(ordinal), CASE WHEN bool_or(kind < 3) THEN created END
        FROM numbered WHERE fresh GROUP BY partition, room_id
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed, private = excluded.private,
            messages = excluded.messages, counted_from = coalesce(h.counted_from, h.seq),
            last_message_at = coalesce(excluded.last_message_at, h.last_message_at)
    ), granted AS (
        INSERT INTO room_members AS m (partition, room_id, user_id, role, since_seq, read_seq, read_ordinal)
        SELECT n.partition, n.room_id, g.user_id, g.role, n.seq, n.seq, n.ordinal
        FROM jsonb_to_recordset(grants::jsonb) AS g (n bigint, user_id uuid, role smallint) JOIN numbered n ON n.n = g.n
        WHERE n.fresh AND g.role IS NOT NULL
        ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role
    ), removed AS (
        DELETE FROM room_members m USING (
            SELECT n.partition, n.room_id, g.user_id
            FROM jsonb_to_recordset(grants::jsonb) AS g (n bigint, user_id uuid, role smallint) JOIN numbered n ON n.n = g.n
            WHERE n.fresh AND g.role IS NULL
        ) r WHERE m.partition = r.partition AND m.room_id = r.room_id AND m.user_id = r.user_id
    )
    SELECT (SELECT l.epoch FROM log l), fresh, first_position IS NULL AND hidden,
        coalesce(first_position, position), coalesce(first_seq, seq), first_id, first_kind, first_body, first_created_at,
        CASE WHEN first_position IS NULL THEN ordinal ELSE first_ordinal END
    FROM numbered ORDER BY n;
END
$$;

-- For replicas of the release before.
CREATE OR REPLACE FUNCTION append_events(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint,
    visibilities boolean[], grants text
) RETURNS TABLE (
    epoch uuid, fresh boolean, hidden boolean, event_position bigint, event_seq bigint,
    first_id uuid, first_kind smallint, first_body text, first_created_at bigint
) LANGUAGE sql VOLATILE
AS $$
    SELECT b.epoch, b.fresh, b.hidden, b.event_position, b.event_seq, b.first_id, b.first_kind, b.first_body, b.first_created_at
    FROM append_batch(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing, created, visibilities, grants) b
$$;

-- What the statements of the service need. A migration with another table adds a row.
CREATE TABLE needed_privileges (name text PRIMARY KEY, privileges text[] NOT NULL);
INSERT INTO needed_privileges (name, privileges) VALUES
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
    ('files_to_drop', ARRAY['SELECT', 'INSERT', 'DELETE']),
    ('needed_privileges', ARRAY['SELECT']);

-- As before, with the table above. Takes from every role except the owner what the statements of the service do not need: default
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
        FROM message.needed_privileges AS needed
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

-- Changes of messages: edits (op 1), deletions (2), pins (3) and ends of pins (4) are events of kind 4 with a target, the seq of
-- their message. They exist only from format 3 of the log on.
ALTER TABLE events ADD COLUMN target bigint, ADD COLUMN op smallint;

-- What changes have made of a message. A message that was never changed has no row. Written only in the transaction that appends a
-- change, under the lock of the partition's head, and by erasures.
CREATE TABLE message_state (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    -- The last change; text_revision: the last edit or the deletion, 0 without.
    revision bigint NOT NULL,
    text_revision bigint NOT NULL,
    -- The text of the last edit; null without an edit, and for a deleted message.
    content text,
    edited_at bigint,
    deleted_at bigint,
    deleted_by uuid,
    deleted_by_name text,
    -- The change that pinned the message; null while it is not pinned.
    pinned bigint,
    -- Whether texts of the deleted message remain to be erased; those of its edits up to erased_to are erased.
    to_erase boolean NOT NULL DEFAULT false,
    erased_to bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (partition, room_id, seq)
);
CREATE INDEX message_state_revision ON message_state (partition, room_id, revision);
CREATE INDEX message_state_pinned ON message_state (partition, room_id, pinned) WHERE pinned IS NOT NULL;
CREATE INDEX message_state_to_erase ON message_state (deleted_at) WHERE to_erase;

-- The edits of each message. An index of events would have to be built from all events, while the log waits.
CREATE TABLE message_edits (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    target bigint NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (partition, room_id, target, seq)
);

-- The runs of consecutive changes in each room, so that a page of history skips them: between two runs there is at least one other
-- event. Unlike an index of all other events, they cost an append of messages nothing.
CREATE TABLE change_runs (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (partition, room_id, first_seq)
) WITH (fillfactor = 50);

-- Returns the ranges of seq, both bounds exclusive, that contain exactly the next `most` events between two seqs, both exclusive,
-- without changes. `below` is at most the room's head and 1: the numbers of a room are dense, so the size of a range is known.
CREATE FUNCTION item_ranges(partition_ integer, room uuid, above bigint, below bigint, most bigint, newest_first boolean)
RETURNS TABLE (low bigint, high bigint) LANGUAGE plpgsql STABLE ROWS 2
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    remaining bigint := most;
    run record;
BEGIN
    IF most <= 0 THEN
        RETURN;
    END IF;
    IF newest_first THEN
        high := below;
        FOR run IN
            SELECT r.first_seq, r.last_seq FROM change_runs r
            WHERE r.partition = partition_ AND r.room_id = room AND r.first_seq < below
            ORDER BY r.partition DESC, r.room_id DESC, r.first_seq DESC
        LOOP
            low := greatest(above, run.last_seq, high - 1 - remaining);
            IF high - low > 1 THEN
                RETURN NEXT;
                remaining := remaining - (high - low - 1);
            END IF;
            high := least(high, run.first_seq);
            EXIT WHEN remaining <= 0 OR high - 1 <= above;
        END LOOP;
        low := greatest(above, high - 1 - remaining);
    ELSE
        low := above;
        FOR run IN
            SELECT r.first_seq, r.last_seq FROM change_runs r
            WHERE r.partition = partition_ AND r.room_id = room AND r.first_seq >= coalesce((
                SELECT max(b.first_seq) FROM change_runs b
                WHERE b.partition = partition_ AND b.room_id = room AND b.first_seq <= above), 0)
            ORDER BY r.partition, r.room_id, r.first_seq
        LOOP
            high := least(below, run.first_seq, low + 1 + remaining);
            IF high - low > 1 THEN
                RETURN NEXT;
                remaining := remaining - (high - low - 1);
            END IF;
            low := greatest(low, run.last_seq);
            EXIT WHEN remaining <= 0 OR low + 1 >= below;
        END LOOP;
        high := least(below, low + 1 + remaining);
    END IF;
    IF remaining > 0 AND high - low > 1 THEN
        RETURN NEXT;
    END IF;
END
$$;

-- Appends a batch of changes without repeats of its own, in its order; only in format 3. `bounds`: a change needs a message that was
-- neither edited nor deleted above this seq. `moderators`: the sender is a server key. The settings are those of append_events. Each
-- change is judged by statements with snapshots of their own, so it sees the changes before it in the batch.
-- The verdict is `appended`, `repeated`, `unchanged`, or the reason of a refusal.
CREATE FUNCTION append_changes(
    partitions_ integer[], rooms uuid[], ids uuid[], senders uuid[], client_ids text[], bodies text[], created bigint,
    targets bigint[], ops smallint[], target_ids uuid[], bounds bigint[], moderators boolean[], contents text[], names text[]
) RETURNS TABLE (
    epoch uuid, verdict text, event_position bigint, event_seq bigint,
    first_id uuid, first_body text, first_created_at bigint
) LANGUAGE plpgsql VOLATILE
SET lock_timeout = '100ms' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    c record;
    earlier record;
    head record;
    member_role smallint;
    original record;
    state record;
    present message_state;
    text_of_body CONSTANT text := '"content":"((?:[^"\\]|\\.)*)"';
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;
    epoch := (SELECT l.epoch FROM log l);

    FOR c IN
        SELECT * FROM unnest(
            partitions_, rooms, ids, senders, client_ids, bodies, targets, ops, target_ids, bounds, moderators, contents, names
        ) WITH ORDINALITY AS b (
            partition, room_id, id, sender_id, client_id, body, target, op, target_id, bound, moderator, content, name, n
        ) ORDER BY b.n
    LOOP
        event_position := NULL;
        event_seq := NULL;
        first_id := NULL;
        first_body := NULL;
        first_created_at := NULL;
        <<judging>>
        BEGIN
            -- As in append_events, in the order of the one index that has all columns; so are the other look-ups by more than two.
            SELECT i.* INTO earlier FROM events i
            WHERE (i.partition, i.room_id, i.sender_id, i.client_id) >= (c.partition, c.room_id, c.sender_id, c.client_id)
            ORDER BY i.partition, i.room_id, i.sender_id, i.client_id LIMIT 1;
            IF earlier.partition = c.partition AND earlier.room_id = c.room_id AND earlier.sender_id = c.sender_id
                AND earlier.client_id = c.client_id THEN
                IF earlier.kind = 4 AND earlier.target = c.target AND earlier.op = c.op THEN
                    verdict := 'repeated';
                    event_position := earlier.position;
                    event_seq := earlier.seq;
                    first_id := earlier.id;
                    first_body := earlier.body;
                    first_created_at := earlier.created_at;
                ELSE
                    verdict := 'other_act';
                END IF;
                EXIT judging;
            END IF;

            SELECT h.closed, h.private INTO head FROM room_heads h WHERE h.partition = c.partition AND h.room_id = c.room_id;
            IF NOT FOUND OR head.closed THEN
                verdict := 'hidden';
                EXIT judging;
            END IF;
            member_role := (SELECT m.role FROM room_members m
                WHERE m.partition = c.partition AND m.room_id = c.room_id AND m.user_id = c.sender_id);
            IF head.private AND member_role IS NULL AND NOT c.moderator THEN
                verdict := 'hidden';
                EXIT judging;
            END IF;

            SELECT e.* INTO original FROM events e WHERE (e.partition, e.room_id, e.seq) >= (c.partition, c.room_id, c.target)
            ORDER BY e.partition, e.room_id, e.seq LIMIT 1;
            IF original.partition = c.partition AND original.room_id = c.room_id AND original.seq = c.target AND original.kind <> 4 THEN
                NULL;
            ELSE
                verdict := 'no_message';
                EXIT judging;
            END IF;
            IF original.kind = 3 THEN
                verdict := 'room_event';
                EXIT judging;
            END IF;
            IF NOT (CASE c.op
                WHEN 1 THEN c.sender_id = original.sender_id
                WHEN 2 THEN c.sender_id = original.sender_id OR coalesce(member_role, 1) >= 2 OR c.moderator
                ELSE coalesce(member_role, 1) >= 2 OR c.moderator
            END) THEN
                verdict := 'forbidden';
                EXIT judging;
            END IF;
            IF c.target_id <> original.id THEN
                verdict := 'other_message';
                EXIT judging;
            END IF;

            present := NULL;
            SELECT s.* INTO state FROM message_state s WHERE (s.partition, s.room_id, s.seq) >= (c.partition, c.room_id, c.target)
            ORDER BY s.partition, s.room_id, s.seq LIMIT 1;
            IF state.partition = c.partition AND state.room_id = c.room_id AND state.seq = c.target THEN
                present := state;
            END IF;
            IF present.deleted_at IS NOT NULL THEN
                verdict := CASE WHEN c.op IN (2, 4) THEN 'unchanged' ELSE 'deleted' END;
                EXIT judging;
            END IF;
            -- Bodies are compared as text, because the JSON functions reject \u0000. A quote within a text has a backslash before it.
            IF c.op = 1 AND c.content = '' AND strpos(original.body, ',"files":[') = 0 THEN
                verdict := 'empty';
                EXIT judging;
            END IF;
            IF (CASE c.op
                WHEN 1 THEN CASE WHEN present.content IS NULL
                    THEN substring(original.body FROM text_of_body) IS NOT DISTINCT FROM substring(c.body FROM text_of_body)
                    ELSE present.content = c.content END
                WHEN 3 THEN present.pinned IS NOT NULL
                WHEN 4 THEN present.pinned IS NULL
                ELSE false
            END) THEN
                verdict := 'unchanged';
                EXIT judging;
            END IF;
            IF c.op = 3 AND 100 <= (SELECT count(*) FROM message_state s
                WHERE s.partition = c.partition AND s.room_id = c.room_id AND s.pinned IS NOT NULL) THEN
                verdict := 'too_many_pins';
                EXIT judging;
            END IF;
            IF present.text_revision > c.bound THEN
                verdict := 'changed';
                EXIT judging;
            END IF;
            verdict := 'appended';
        END judging;

        IF verdict = 'appended' THEN
            UPDATE partitions p SET head = p.head + 1 WHERE p.partition = c.partition RETURNING p.head INTO event_position;
            UPDATE room_heads h SET seq = h.seq + 1 WHERE h.partition = c.partition AND h.room_id = c.room_id
            RETURNING h.seq INTO event_seq;
            INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at, target, op)
            VALUES (c.partition, event_position, c.room_id, event_seq, 4, c.id, c.sender_id, c.client_id, c.body, created, c.target, c.op);
            INSERT INTO message_state AS s (
                partition, room_id, seq, revision, text_revision, content, edited_at, deleted_at, deleted_by, deleted_by_name, pinned, to_erase)
            SELECT c.partition, c.room_id, c.target, event_seq, CASE WHEN c.op IN (1, 2) THEN event_seq ELSE 0 END,
                CASE WHEN c.op = 1 THEN c.content END, CASE WHEN c.op = 1 THEN created END,
                CASE WHEN c.op = 2 THEN created END, CASE WHEN c.op = 2 THEN c.sender_id END, CASE WHEN c.op = 2 THEN c.name END,
                CASE WHEN c.op = 3 THEN event_seq END, c.op = 2
            ON CONFLICT (partition, room_id, seq) DO UPDATE SET
                revision = excluded.revision,
                text_revision = greatest(s.text_revision, excluded.text_revision),
                content = CASE c.op WHEN 1 THEN excluded.content WHEN 2 THEN NULL ELSE s.content END,
                edited_at = coalesce(excluded.edited_at, s.edited_at),
                deleted_at = excluded.deleted_at,
                deleted_by = excluded.deleted_by,
                deleted_by_name = excluded.deleted_by_name,
                pinned = CASE c.op WHEN 1 THEN s.pinned WHEN 3 THEN excluded.pinned END,
                to_erase = excluded.to_erase;
            IF c.op = 1 THEN
                INSERT INTO message_edits (partition, room_id, target, seq) VALUES (c.partition, c.room_id, c.target, event_seq);
            END IF;
            UPDATE change_runs r SET last_seq = event_seq
            WHERE r.partition = c.partition AND r.room_id = c.room_id AND r.last_seq = event_seq - 1 AND r.first_seq = (
                SELECT max(n.first_seq) FROM change_runs n WHERE n.partition = c.partition AND n.room_id = c.room_id);
            IF NOT FOUND THEN
                INSERT INTO change_runs (partition, room_id, first_seq, last_seq)
                VALUES (c.partition, c.room_id, event_seq, event_seq);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- As before, except that each event is sought in the order of events_seq, whatever the planner expects. Erases the bodies of these
-- events of a room, and returns how many it has erased; an event without a body counts no second time. Room events stay. It runs as
-- its owner, because the service may not update events; nothing that the caller can create precedes the tables in its search path.
CREATE OR REPLACE FUNCTION erase(partition_ integer, room uuid, seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    number bigint;
    event record;
    erased bigint := 0;
BEGIN
    FOREACH number IN ARRAY seqs LOOP
        SELECT e.ctid AS place, e.* INTO event FROM message.events e
        WHERE (e.partition, e.room_id, e.seq) >= (partition_, room, number)
        ORDER BY e.partition, e.room_id, e.seq LIMIT 1;
        IF event.partition = partition_ AND event.room_id = room AND event.seq = number AND event.kind <> 3
            AND event.body <> message.erased_body(event.body) THEN
            -- Nothing but another erasure changes the row.
            UPDATE message.events e SET body = message.erased_body(e.body) WHERE e.ctid = event.place;
            IF FOUND THEN
                erased := erased + 1;
            END IF;
        END IF;
    END LOOP;
    RETURN erased;
END
$$;

-- Erases texts of a deleted message: that of the message, and those of its next edits, at most this number. Returns how many events it
-- has erased.
CREATE FUNCTION erase_deleted(partition_ integer, room uuid, message bigint, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    state record;
    edits bigint[];
    erased bigint;
BEGIN
    -- The lock makes replicas take turns.
    SELECT s.ctid AS place, s.* INTO state FROM message_state s
    WHERE (s.partition, s.room_id, s.seq) >= (partition_, room, message)
    ORDER BY s.partition, s.room_id, s.seq LIMIT 1 FOR UPDATE;
    IF state.partition = partition_ AND state.room_id = room AND state.seq = message AND state.to_erase THEN
        edits := ARRAY (
            SELECT e.seq FROM message_edits e
            WHERE e.partition = partition_ AND e.room_id = room AND e.target = message AND e.seq > state.erased_to
            ORDER BY e.seq LIMIT most);
        erased := erase(partition_, room, message || edits);
        UPDATE message_state s
        SET to_erase = cardinality(edits) = most, erased_to = coalesce(edits[cardinality(edits)], s.erased_to)
        WHERE s.ctid = state.place;
    END IF;
    RETURN coalesce(erased, 0);
END
$$;

-- As before, with the tables of changes. Takes from every role except the owner what the statements of the service do not need: default
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
            ('change_runs', ARRAY['SELECT', 'INSERT', 'UPDATE'])
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

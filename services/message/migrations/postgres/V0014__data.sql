-- Data of the app with messages, which exists only from format 5 of the log on. A message has it in its body; this is the data of the
-- last edit that has changed it. Null without such an edit, and for a deleted message.
ALTER TABLE message_state ADD COLUMN data text;

-- As append_changes before, which replicas of the release before still use, with data. Appends a batch of changes without repeats of
-- its own, in its order. `keeps_text`: an edit keeps the text, which its body then gets, so that the versions of the message have it.
-- `datas`: the data of edits; null if it stays. `bounds`: a change needs a message that was
-- neither edited nor deleted above this seq. `moderators`: the sender is a server key. The settings are those of append_events. Each
-- change is judged by statements with snapshots of their own, so it sees the changes before it in the batch.
-- The verdict is `appended`, `repeated`, `unchanged`, or the reason of a refusal.
CREATE FUNCTION change_messages(
    partitions_ integer[], rooms uuid[], ids uuid[], senders uuid[], client_ids text[], bodies text[], created bigint,
    targets bigint[], ops smallint[], target_ids uuid[], bounds bigint[], moderators boolean[], contents text[], names text[],
    keeping boolean[], datas text[]
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
    changed_body text;
    text_of_body CONSTANT text := '"content":"((?:[^"\\]|\\.)*)"';
    data_of_body CONSTANT text := '"data":"((?:[^"\\]|\\.)*)"';
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;
    epoch := (SELECT l.epoch FROM log l);

    FOR c IN
        SELECT * FROM unnest(
            partitions_, rooms, ids, senders, client_ids, bodies, targets, ops, target_ids, bounds, moderators, contents, names,
            keeping, datas
        ) WITH ORDINALITY AS b (
            partition, room_id, id, sender_id, client_id, body, target, op, target_id, bound, moderator, content, name,
            keeps_text, data, n
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
            IF c.op = 1 AND c.content = '' AND c.keeps_text IS NOT TRUE AND strpos(original.body, ',"files":[') = 0 THEN
                verdict := 'empty';
                EXIT judging;
            END IF;
            IF c.op = 1 AND c.data IS NOT NULL AND original.kind = 2 THEN
                verdict := 'no_data';
                EXIT judging;
            END IF;
            IF (CASE c.op
                WHEN 1 THEN CASE WHEN c.keeps_text THEN true
                    WHEN present.content IS NULL
                    THEN substring(original.body FROM text_of_body) IS NOT DISTINCT FROM substring(c.body FROM text_of_body)
                    ELSE present.content = c.content END
                    AND CASE WHEN c.data IS NULL THEN true
                    WHEN present.data IS NULL
                    THEN coalesce(substring(original.body FROM data_of_body), '{}') = substring(c.body FROM data_of_body)
                    ELSE present.data = c.data END
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
            changed_body := c.body;
            IF c.keeps_text THEN
                changed_body := left(c.body, -1) || ',"content":' || CASE WHEN present.content IS NULL
                    THEN '"' || coalesce(substring(original.body FROM text_of_body), '') || '"'
                    ELSE to_json(present.content)::text END || '}';
            END IF;
            UPDATE partitions p SET head = p.head + 1 WHERE p.partition = c.partition RETURNING p.head INTO event_position;
            UPDATE room_heads h SET seq = h.seq + 1 WHERE h.partition = c.partition AND h.room_id = c.room_id
            RETURNING h.seq INTO event_seq;
            INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at, target, op)
            VALUES (c.partition, event_position, c.room_id, event_seq, 4, c.id, c.sender_id, c.client_id, changed_body, created, c.target, c.op);
            INSERT INTO message_state AS s (
                partition, room_id, seq, revision, text_revision, content, edited_at, deleted_at, deleted_by, deleted_by_name, pinned, to_erase,
                data)
            SELECT c.partition, c.room_id, c.target, event_seq, CASE WHEN c.op IN (1, 2) THEN event_seq ELSE 0 END,
                CASE WHEN c.op = 1 AND c.keeps_text IS NOT TRUE THEN c.content END, CASE WHEN c.op = 1 THEN created END,
                CASE WHEN c.op = 2 THEN created END, CASE WHEN c.op = 2 THEN c.sender_id END, CASE WHEN c.op = 2 THEN c.name END,
                CASE WHEN c.op = 3 THEN event_seq END, c.op = 2, CASE WHEN c.op = 1 THEN c.data END
            ON CONFLICT (partition, room_id, seq) DO UPDATE SET
                revision = excluded.revision,
                text_revision = greatest(s.text_revision, excluded.text_revision),
                content = CASE c.op WHEN 1 THEN coalesce(excluded.content, s.content) WHEN 2 THEN NULL ELSE s.content END,
                edited_at = coalesce(excluded.edited_at, s.edited_at),
                deleted_at = excluded.deleted_at,
                deleted_by = excluded.deleted_by,
                deleted_by_name = excluded.deleted_by_name,
                pinned = CASE c.op WHEN 1 THEN s.pinned WHEN 3 THEN excluded.pinned END,
                to_erase = excluded.to_erase,
                data = CASE WHEN c.op <> 2 THEN coalesce(excluded.data, s.data) END;
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

-- For replicas of the release before.
CREATE OR REPLACE FUNCTION append_changes(
    partitions_ integer[], rooms uuid[], ids uuid[], senders uuid[], client_ids text[], bodies text[], created bigint,
    targets bigint[], ops smallint[], target_ids uuid[], bounds bigint[], moderators boolean[], contents text[], names text[]
) RETURNS TABLE (
    epoch uuid, verdict text, event_position bigint, event_seq bigint,
    first_id uuid, first_body text, first_created_at bigint
) LANGUAGE sql VOLATILE
AS $$
    SELECT * FROM change_messages(partitions_, rooms, ids, senders, client_ids, bodies, created,
        targets, ops, target_ids, bounds, moderators, contents, names, NULL, NULL)
$$;

-- Reactions: events of kind 4 with op 5. They exist only from format 4 of the log on.
CREATE TABLE reactions (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    user_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    username text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (partition, room_id, seq, user_id, name)
);
CREATE INDEX reactions_at ON reactions (partition, room_id, seq, name, at, user_id);

-- A JSON array of {name, count} in the order of the first reaction with each name; null without reactions.
ALTER TABLE message_state ADD COLUMN reactions text;

-- A deleted message has no reactions. A trigger clears them, so also for replicas of the release before. Their rows are deleted with
-- the texts.
CREATE FUNCTION clear_reactions() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.reactions := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER message_state_clear_reactions BEFORE UPDATE OF deleted_at ON message_state
FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION clear_reactions();

-- Appends a batch of reactions; only in format 4. Those to one message become one event, or several of at most 256. The event has the
-- id in `ids` of the first reaction that changes something, and its sender. The settings are those of append_changes. Each reaction is
-- judged after those before it. The verdict is `appended`, `unchanged`, or the reason of a refusal. `first_of` is the number in the
-- batch of the reaction that gives its event the id; only there is `event_body` given. `own` are all names of the user.
CREATE FUNCTION append_reactions(
    partitions_ integer[], rooms uuid[], ids uuid[], senders uuid[], usernames text[], created bigint,
    targets bigint[], target_ids uuid[], names_ text[], ons boolean[], most_names integer
) RETURNS TABLE (
    epoch uuid, verdict text, event_position bigint, event_seq bigint, first_of bigint, event_body text, event_id uuid, own text[]
) LANGUAGE plpgsql VOLATILE
SET lock_timeout = '100ms' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    log_epoch uuid;
    fold record;
    head record;
    original record;
    state record;
    present message_state;
    refusal text;
    k bigint;
    place integer;
    names text[];
    counts bigint[];
    standing record;
    stands boolean;
    numbers bigint[];
    first_number bigint;
    first_id uuid;
    at_position bigint;
    at_seq bigint;
    verdicts text[] := array_fill(NULL::text, ARRAY[cardinality(partitions_)]);
    positions bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(partitions_)]);
    seqs bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(partitions_)]);
    firsts bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(partitions_)]);
    after json;
    bodies text[] := array_fill(NULL::text, ARRAY[cardinality(partitions_)]);
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;
    log_epoch := (SELECT l.epoch FROM log l);

    FOR fold IN
        SELECT b.partition, b.room_id, b.target, array_agg(b.n ORDER BY b.n) AS members FROM (
            SELECT u.*, (row_number() OVER (PARTITION BY u.partition, u.room_id, u.target ORDER BY u.n) - 1) / 256 AS part
            FROM unnest(partitions_, rooms, targets) WITH ORDINALITY AS u (partition, room_id, target, n)
        ) b GROUP BY b.partition, b.room_id, b.target, b.part ORDER BY min(b.n)
    LOOP
        -- What holds for all reactions of the fold; members of a private room are looked up for each.
        refusal := NULL;
        SELECT h.closed, h.private INTO head FROM room_heads h
        WHERE h.partition = fold.partition AND h.room_id = fold.room_id;
        IF NOT FOUND OR head.closed THEN
            refusal := 'hidden';
        END IF;
        SELECT e.* INTO original FROM events e WHERE (e.partition, e.room_id, e.seq) >= (fold.partition, fold.room_id, fold.target)
        ORDER BY e.partition, e.room_id, e.seq LIMIT 1;
        IF refusal IS NULL THEN
            IF original.partition = fold.partition AND original.room_id = fold.room_id AND original.seq = fold.target
                AND original.kind <> 4 THEN
                refusal := CASE WHEN original.kind = 3 THEN 'room_event' END;
            ELSE
                refusal := 'no_message';
            END IF;
        END IF;
        present := NULL;
        SELECT s.* INTO state FROM message_state s WHERE (s.partition, s.room_id, s.seq) >= (fold.partition, fold.room_id, fold.target)
        ORDER BY s.partition, s.room_id, s.seq LIMIT 1;
        IF state.partition = fold.partition AND state.room_id = fold.room_id AND state.seq = fold.target THEN
            present := state;
        END IF;
        SELECT coalesce(array_agg(r.item ->> 'name' ORDER BY r.n), '{}'), coalesce(array_agg((r.item ->> 'count')::bigint ORDER BY r.n), '{}')
        INTO names, counts
        FROM jsonb_array_elements(coalesce(present.reactions, '[]')::jsonb) WITH ORDINALITY AS r (item, n);

        numbers := '{}';
        FOREACH k IN ARRAY fold.members LOOP
            IF refusal = 'hidden' OR (head.private AND NOT EXISTS (
                SELECT 1 FROM room_members m
                WHERE m.partition = fold.partition AND m.room_id = fold.room_id AND m.user_id = senders[k])) THEN
                verdicts[k] := 'hidden';
                CONTINUE;
            END IF;
            verdicts[k] := CASE
                WHEN refusal IS NOT NULL THEN refusal
                WHEN target_ids[k] <> original.id THEN 'other_message'
                WHEN present.deleted_at IS NOT NULL THEN 'deleted' END;
            CONTINUE WHEN verdicts[k] IS NOT NULL;

            place := array_position(names, names_[k]);
            IF ons[k] AND place IS NULL AND cardinality(names) >= most_names THEN
                verdicts[k] := 'too_many_names';
                CONTINUE;
            END IF;
            -- Sought in the order of the primary key, whatever the planner expects.
            SELECT f.ctid AS place, f.* INTO standing FROM reactions f
            WHERE (f.partition, f.room_id, f.seq, f.user_id, f.name)
                >= (fold.partition, fold.room_id, fold.target, senders[k], names_[k])
            ORDER BY f.partition, f.room_id, f.seq, f.user_id, f.name LIMIT 1;
            stands := coalesce(standing.partition = fold.partition AND standing.room_id = fold.room_id
                AND standing.seq = fold.target AND standing.user_id = senders[k] AND standing.name = names_[k], false);
            IF stands = ons[k] THEN
                verdicts[k] := 'unchanged';
                CONTINUE;
            END IF;
            IF ons[k] THEN
                INSERT INTO reactions (partition, room_id, seq, user_id, name, username, at)
                VALUES (fold.partition, fold.room_id, fold.target, senders[k], names_[k], usernames[k], created);
            ELSE
                DELETE FROM reactions r WHERE r.ctid = standing.place;
            END IF;
            verdicts[k] := 'appended';
            numbers := numbers || k;
            IF ons[k] AND place IS NULL THEN
                names := names || names_[k];
                counts := counts || 1::bigint;
            ELSIF ons[k] THEN
                counts[place] := counts[place] + 1;
            ELSIF counts[place] > 1 THEN
                counts[place] := counts[place] - 1;
            ELSE
                names := names[:place - 1] || names[place + 1:];
                counts := counts[:place - 1] || counts[place + 1:];
            END IF;
        END LOOP;
        CONTINUE WHEN cardinality(numbers) = 0;

        first_number := numbers[1];
        first_id := ids[first_number];
        UPDATE partitions p SET head = p.head + 1 WHERE p.partition = fold.partition RETURNING p.head INTO at_position;
        UPDATE room_heads h SET seq = h.seq + 1 WHERE h.partition = fold.partition AND h.room_id = fold.room_id
        RETURNING h.seq INTO at_seq;
        after := (
            SELECT json_agg(json_build_object('name', c.name, 'count', c.count) ORDER BY c.n)
            FROM unnest(names, counts) WITH ORDINALITY AS c (name, count, n));
        bodies[first_number] := (
            SELECT json_build_object('sender_username', usernames[first_number], 'reactions', coalesce(after, '[]'), 'reacted', json_agg(json_build_object(
                'user', senders[c.number], 'username', usernames[c.number], 'name', names_[c.number], 'on', ons[c.number]) ORDER BY c.n))
            FROM unnest(numbers) WITH ORDINALITY AS c (number, n))::text;
        INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at, target, op)
        VALUES (fold.partition, at_position, fold.room_id, at_seq, 4, first_id, senders[first_number], 'i:' || first_id,
            bodies[first_number], created, fold.target, 5);
        INSERT INTO message_state AS s (partition, room_id, seq, revision, text_revision, reactions)
        VALUES (fold.partition, fold.room_id, fold.target, at_seq, 0, after::text)
        ON CONFLICT (partition, room_id, seq) DO UPDATE SET revision = excluded.revision, reactions = excluded.reactions;
        UPDATE change_runs r SET last_seq = at_seq
        WHERE r.partition = fold.partition AND r.room_id = fold.room_id AND r.last_seq = at_seq - 1 AND r.first_seq = (
            SELECT max(n.first_seq) FROM change_runs n WHERE n.partition = fold.partition AND n.room_id = fold.room_id);
        IF NOT FOUND THEN
            INSERT INTO change_runs (partition, room_id, first_seq, last_seq) VALUES (fold.partition, fold.room_id, at_seq, at_seq);
        END IF;
        FOREACH k IN ARRAY numbers LOOP
            positions[k] := at_position;
            seqs[k] := at_seq;
            firsts[k] := first_number;
        END LOOP;
    END LOOP;

    RETURN QUERY
    SELECT log_epoch, b.verdict, b.event_position, b.event_seq, b.first_of, b.event_body, b.event_id,
        CASE WHEN b.verdict IN ('appended', 'unchanged') THEN ARRAY (
            SELECT r.name::text FROM reactions r
            WHERE (r.partition, r.room_id, r.seq, r.user_id) >= (b.partition, b.room_id, b.target, b.user_id)
                AND (r.partition, r.room_id, r.seq, r.user_id) <= (b.partition, b.room_id, b.target, b.user_id)
            ORDER BY r.partition, r.room_id, r.seq, r.user_id, r.name LIMIT most_names) END
    FROM unnest(verdicts, positions, seqs, firsts, bodies, ids, partitions_, rooms, targets, senders) WITH ORDINALITY
        AS b (verdict, event_position, event_seq, first_of, event_body, event_id, partition, room_id, target, user_id, n)
    ORDER BY b.n;
END
$$;

-- As before, and deletes the reactions to the message, at most this number.
CREATE OR REPLACE FUNCTION erase_deleted(partition_ integer, room uuid, message bigint, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    state record;
    edits bigint[];
    erased bigint;
    deleted bigint;
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
        DELETE FROM reactions r WHERE r.ctid = ANY (ARRAY (
            SELECT d.ctid FROM reactions d
            WHERE d.partition = partition_ AND d.room_id = room AND d.seq = message
            ORDER BY d.partition, d.room_id, d.seq, d.user_id, d.name LIMIT most));
        GET DIAGNOSTICS deleted = ROW_COUNT;
        UPDATE message_state s
        SET to_erase = cardinality(edits) = most OR deleted = most, erased_to = coalesce(edits[cardinality(edits)], s.erased_to)
        WHERE s.ctid = state.place;
    END IF;
    RETURN coalesce(erased, 0);
END
$$;

INSERT INTO needed_privileges (name, privileges) VALUES ('reactions', ARRAY['SELECT', 'INSERT', 'DELETE']);
SELECT restrict_privileges();

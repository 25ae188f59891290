-- The search of messages. A task of the service reads the log and fills these tables, so that an append does no work for the search.

-- The messages that searches find, with the terms of their present text, of their room and of their sender. Deleted messages and
-- messages without words have no row.
CREATE TABLE search (
    room_id uuid NOT NULL,
    created_at bigint NOT NULL,
    seq bigint NOT NULL,
    partition integer NOT NULL,
    sender_id uuid NOT NULL,
    terms tsvector NOT NULL,
    PRIMARY KEY (room_id, created_at, seq)
);
CREATE INDEX search_newest ON search (created_at, room_id, seq);
-- Without a list of pending entries, which the next reader or writer would have to empty.
CREATE INDEX search_terms ON search USING gin (terms) WITH (fastupdate = off);

-- How far the log is in the index: the events of a partition up to this position are. The replica that holds a partition fills it.
CREATE TABLE search_progress (
    partition integer PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    holder uuid,
    held_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

-- Deleted rooms whose messages remain to be removed from the index.
CREATE TABLE search_closed (
    room_id uuid PRIMARY KEY
);

-- Holds partitions with events that are not in the index, for 2 s and at most this number of them, and returns their positions. First
-- those that were held longest ago. Without such events it writes nothing.
CREATE FUNCTION claim_unindexed(claimer uuid, most integer) RETURNS TABLE (partition integer, "position" bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO search_progress (partition)
    SELECT p.partition FROM partitions p
    WHERE NOT EXISTS (SELECT 1 FROM search_progress s WHERE s.partition = p.partition)
    ON CONFLICT DO NOTHING;
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    UPDATE search_progress s SET holder = claimer, held_until = clock_timestamp() + interval '2 s'
    FROM (
        SELECT c.partition FROM search_progress c JOIN partitions p ON p.partition = c.partition
        WHERE c.position < p.head AND (c.holder = claimer OR c.held_until < clock_timestamp())
        ORDER BY c.held_until LIMIT most FOR UPDATE OF c SKIP LOCKED
    ) free
    WHERE s.partition = free.partition RETURNING s.partition, s.position;
END
$$;

-- Brings a page of the log into the index, unless another replica has done so: the events above `after`, up to `up_to`. Messages with
-- terms get these terms, messages without are removed. The commit does not wait for the disk: after a crash of the database the page is
-- read again.
CREATE FUNCTION index_messages(
    partition_ integer, after bigint, up_to bigint, rooms uuid[], created bigint[], seqs bigint[], senders uuid[], terms_ text[], closed uuid[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE search_progress p SET position = up_to WHERE p.partition = partition_ AND p.position = after;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM search s USING unnest(rooms, created, seqs, terms_) AS m (room_id, created_at, seq, terms)
    WHERE m.terms = '' AND s.room_id = m.room_id AND s.created_at = m.created_at AND s.seq = m.seq;
    INSERT INTO search AS s (room_id, created_at, seq, partition, sender_id, terms)
    SELECT m.room_id, m.created_at, m.seq, partition_, m.sender_id, array_to_tsvector(string_to_array(m.terms, ' '))
    FROM unnest(rooms, created, seqs, senders, terms_) AS m (room_id, created_at, seq, sender_id, terms) WHERE m.terms <> ''
    ON CONFLICT (room_id, created_at, seq) DO UPDATE SET terms = excluded.terms;
    INSERT INTO search_closed (room_id) SELECT unnest(closed) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- Removes messages of deleted rooms from the index, at most this number. Returns whether more may remain.
CREATE FUNCTION forget_closed(most bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    room uuid;
    removed bigint;
BEGIN
    room := (SELECT c.room_id FROM search_closed c LIMIT 1 FOR UPDATE SKIP LOCKED);
    IF room IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM search s WHERE (s.room_id, s.created_at, s.seq) IN (
        SELECT o.room_id, o.created_at, o.seq FROM search o WHERE o.room_id = room ORDER BY o.room_id, o.created_at, o.seq LIMIT most);
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed < most THEN
        DELETE FROM search_closed c WHERE c.room_id = room;
    END IF;
    RETURN true;
END
$$;

-- The newest messages with these terms below a place in the order of searches, found by the index of terms, whatever the planner
-- expects.
CREATE FUNCTION messages_with_terms(wanted tsquery, below_at bigint, below_room uuid, below_seq bigint, most bigint)
RETURNS TABLE (created_at bigint, room_id uuid, seq bigint, partition integer)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off SET jit = off AS $$
    WITH found AS MATERIALIZED (
        SELECT s.created_at, s.room_id, s.seq, s.partition FROM search s WHERE s.terms @@ wanted
    )
    SELECT f.* FROM found f WHERE (f.created_at, f.room_id, f.seq) < (below_at, below_room, below_seq)
    ORDER BY f.created_at DESC, f.room_id DESC, f.seq DESC LIMIT most
$$;

INSERT INTO needed_privileges (name, privileges) VALUES
    ('search', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('search_progress', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('search_closed', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']);
SELECT restrict_privileges();

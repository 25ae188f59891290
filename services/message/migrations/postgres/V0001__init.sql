-- The partition is in every key, so that the tables can be distributed by it or split over several servers by range.

-- One row: which log this is. The fingerprint names the database it was last opened on.
CREATE TABLE log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch uuid NOT NULL,
    fingerprint text NOT NULL,
    partitions integer NOT NULL
);

-- Heads are updated by every append: room in the page keeps the updates HOT, so that no index grows with them.
CREATE TABLE partitions (
    partition integer PRIMARY KEY,
    head bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);

CREATE TABLE room_heads (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    closed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (partition, room_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);

CREATE TABLE events (
    partition integer NOT NULL,
    position bigint NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind smallint NOT NULL,
    id uuid NOT NULL,
    sender_id uuid NOT NULL,
    client_id text NOT NULL,
    body text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (partition, position),
    CONSTRAINT events_seq UNIQUE (partition, room_id, seq),
    CONSTRAINT events_identity UNIQUE (partition, room_id, sender_id, client_id)
);

-- Appends a batch without repeats of its own, in its order. READ COMMITTED: each statement below has a snapshot of its own.
-- The planner's settings keep to the indexes whatever the statistics say, so that a plan made on an empty table stays good;
-- what they cost on paper would set off just-in-time compilation.
CREATE FUNCTION append_events(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint
) RETURNS TABLE (
    epoch uuid, fresh boolean, closed boolean, event_position bigint, event_seq bigint,
    first_id uuid, first_kind smallint, first_body text, first_created_at bigint
) LANGUAGE plpgsql VOLATILE
SET lock_timeout = '250ms' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;

    RETURN QUERY
    WITH judged AS (
        SELECT b.*, p.head, coalesce(h.seq, 0) AS room_head,
            e.position AS first_position, e.seq AS first_seq, e.id AS first_id, e.kind AS first_kind, e.body AS first_body,
            e.created_at AS first_created_at,
            coalesce(h.closed, false) OR coalesce(bool_or(b.closes AND e.position IS NULL) OVER (
                PARTITION BY b.room_id ORDER BY b.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS closed
        FROM unnest(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing) WITH ORDINALITY
            AS b (partition, room_id, kind, id, sender_id, client_id, body, closes, n)
        JOIN partitions p ON p.partition = b.partition
        LEFT JOIN room_heads h ON h.partition = b.partition AND h.room_id = b.room_id
        LEFT JOIN events e ON e.partition = b.partition AND e.room_id = b.room_id AND e.sender_id = b.sender_id AND e.client_id = b.client_id
    ), numbered AS (
        SELECT j.*, j.first_position IS NULL AND NOT j.closed AS fresh,
            j.head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.closed) OVER (PARTITION BY j.partition ORDER BY j.n) AS position,
            j.room_head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.closed) OVER (PARTITION BY j.partition, j.room_id ORDER BY j.n) AS seq
        FROM judged j
    ), inserted AS (
        INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at)
        SELECT partition, position, room_id, seq, kind, id, sender_id, client_id, body, created FROM numbered WHERE fresh
    ), moved AS (
        UPDATE partitions p SET head = f.head
        FROM (SELECT partition, max(position) AS head FROM numbered WHERE fresh GROUP BY partition) f WHERE p.partition = f.partition
    ), moved_rooms AS (
        INSERT INTO room_heads AS h (partition, room_id, seq, closed)
        SELECT partition, room_id, max(seq), bool_or(closes) FROM numbered WHERE fresh GROUP BY partition, room_id
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed
    )
    SELECT (SELECT l.epoch FROM log l), fresh, first_position IS NULL AND closed,
        coalesce(first_position, position), coalesce(first_seq, seq), first_id, first_kind, first_body, first_created_at
    FROM numbered ORDER BY n;
END
$$;

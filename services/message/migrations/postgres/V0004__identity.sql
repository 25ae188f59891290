-- The first event of an identity is sought in the order of events_identity, which no other index has. Asked for by equality alone
-- it is also found in that of a room's numbers, which is narrower, and which the planner preferred when the table had grown and
-- had not been analyzed yet: each append then read all of its room.
-- Otherwise as before; the lock_timeout is that of the migration before this one.

-- Appends a batch without repeats of its own, in its order. READ COMMITTED: each statement below has a snapshot of its own.
-- The planner's settings keep to the indexes whatever the statistics say, so that a plan made on an empty table stays good;
-- what they cost on paper would set off just-in-time compilation.
CREATE OR REPLACE FUNCTION append_events(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint
) RETURNS TABLE (
    epoch uuid, fresh boolean, closed boolean, event_position bigint, event_seq bigint,
    first_id uuid, first_kind smallint, first_body text, first_created_at bigint
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
        SELECT b.*, p.head, coalesce(h.seq, 0) AS room_head,
            e.position AS first_position, e.seq AS first_seq, e.id AS first_id, e.kind AS first_kind, e.body AS first_body,
            e.created_at AS first_created_at,
            coalesce(h.closed, false) OR coalesce(bool_or(b.closes AND e.position IS NULL) OVER (
                PARTITION BY b.room_id ORDER BY b.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS closed
        FROM unnest(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing) WITH ORDINALITY
            AS b (partition, room_id, kind, id, sender_id, client_id, body, closes, n)
        JOIN partitions p ON p.partition = b.partition
        LEFT JOIN room_heads h ON h.partition = b.partition AND h.room_id = b.room_id
        LEFT JOIN LATERAL (
            SELECT * FROM events i
            WHERE (i.partition, i.room_id, i.sender_id, i.client_id) >= (b.partition, b.room_id, b.sender_id, b.client_id)
            ORDER BY i.partition, i.room_id, i.sender_id, i.client_id LIMIT 1
        ) e ON e.partition = b.partition AND e.room_id = b.room_id AND e.sender_id = b.sender_id AND e.client_id = b.client_id
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

-- Format 1: the log of the release before, whose rooms need no opening. Format 2: a room accepts events after it was opened.
ALTER TABLE log ADD COLUMN format integer NOT NULL DEFAULT 1, ADD COLUMN rooms_opened boolean NOT NULL DEFAULT false;

ALTER TABLE room_heads ADD COLUMN private boolean NOT NULL DEFAULT false, ADD COLUMN opened boolean NOT NULL DEFAULT false;

-- Changed only by access events, under the lock of the partition's head, so that a membership begins and ends at a definite seq.
CREATE TABLE room_members (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role smallint NOT NULL,
    since_seq bigint NOT NULL,
    PRIMARY KEY (partition, room_id, user_id)
);

-- A room that was opened before is unchanged: a late repeat must not bring a removed member back.
CREATE FUNCTION open_room(partition_ integer, room uuid, private_ boolean, users uuid[], roles smallint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s'
AS $$
BEGIN
    PERFORM 1 FROM partitions p WHERE p.partition = partition_ FOR UPDATE;
    INSERT INTO room_heads AS h (partition, room_id, seq, private, opened) VALUES (partition_, room, 0, private_, true)
    ON CONFLICT (partition, room_id) DO UPDATE SET private = excluded.private, opened = true WHERE NOT h.opened;
    IF FOUND THEN
        INSERT INTO room_members (partition, room_id, user_id, role, since_seq)
        SELECT partition_, room, m.user_id, m.role, 0 FROM unnest(users, roles) AS m (user_id, role) ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- Appends a batch without repeats of its own, in its order. An access event is the last event of its room in the batch. `grants` is a
-- JSON array of the members that access events add, change or (without a role) remove: [{"n": number in the batch, "user_id", "role"}].
-- READ COMMITTED: each statement below has a snapshot of its own. The planner's settings keep to the indexes whatever the statistics
-- say, so that a plan made on an empty table stays good; what they cost on paper would set off just-in-time compilation.
CREATE FUNCTION append_events(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint,
    visibilities boolean[], grants text
) RETURNS TABLE (
    epoch uuid, fresh boolean, hidden boolean, event_position bigint, event_seq bigint,
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
        SELECT b.*, p.head, coalesce(h.seq, 0) AS room_head, coalesce(h.private, false) AS room_private,
            e.position AS first_position, e.seq AS first_seq, e.id AS first_id, e.kind AS first_kind, e.body AS first_body,
            e.created_at AS first_created_at,
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
            j.room_head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.hidden) OVER (PARTITION BY j.partition, j.room_id ORDER BY j.n) AS seq
        FROM judged j
    ), inserted AS (
        INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at)
        SELECT partition, position, room_id, seq, kind, id, sender_id, client_id, body, created FROM numbered WHERE fresh
    ), moved AS (
        UPDATE partitions p SET head = f.head
        FROM (SELECT partition, max(position) AS head FROM numbered WHERE fresh GROUP BY partition) f WHERE p.partition = f.partition
    ), moved_rooms AS (
        INSERT INTO room_heads AS h (partition, room_id, seq, closed, private)
        SELECT partition, room_id, max(seq), bool_or(closes), coalesce(bool_or(private), bool_or(room_private))
        FROM numbered WHERE fresh GROUP BY partition, room_id
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed, private = excluded.private
    ), granted AS (
        INSERT INTO room_members AS m (partition, room_id, user_id, role, since_seq)
        SELECT n.partition, n.room_id, g.user_id, g.role, n.seq
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
        coalesce(first_position, position), coalesce(first_seq, seq), first_id, first_kind, first_body, first_created_at
    FROM numbered ORDER BY n;
END
$$;

-- For replicas of the release before. `confab-message finish-upgrade` drops it.
CREATE OR REPLACE FUNCTION append_events(
    partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint
) RETURNS TABLE (
    epoch uuid, fresh boolean, closed boolean, event_position bigint, event_seq bigint,
    first_id uuid, first_kind smallint, first_body text, first_created_at bigint
) LANGUAGE sql VOLATILE
AS $$
    SELECT * FROM append_events(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing, created, NULL, NULL)
$$;

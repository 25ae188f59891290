-- A room may have more members than one call of `reopen_room`. The room service then gives them to the log in several calls of one
-- epoch; `partial_` is false in the last one. The epoch of the newest first call, and the room's newest `seq` at that time:
ALTER TABLE room_heads ADD COLUMN opening_in uuid, ADD COLUMN opening_seq bigint;

-- The epoch in which a call last named the member.
ALTER TABLE room_members ADD COLUMN opened_in uuid;

-- `opened_in` of a room is set by the last call; from then on, calls of that epoch are without effect. Members that no call has named
-- leave with the last call, so that no member is missing meanwhile. The events after the first call win over the calls, which may be
-- older: a call neither brings a removed member back nor removes a new one.
CREATE OR REPLACE FUNCTION reopen_room(
    partition_ integer, room uuid, private_ boolean, users uuid[], roles smallint[], epoch_ uuid, partial_ boolean
) RETURNS void LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' SET jit = off SET enable_seqscan = off
AS $$
DECLARE
    since_ bigint;
    head_ bigint;
    changed_ uuid[];
BEGIN
    PERFORM 1 FROM partitions p WHERE p.partition = partition_ FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM log l WHERE l.epoch = epoch_) THEN
        RETURN;
    END IF;
    INSERT INTO room_heads AS h (partition, room_id, seq, private, opened, opening_in, opening_seq)
    VALUES (partition_, room, 0, private_, true, epoch_, 0)
    ON CONFLICT (partition, room_id) DO UPDATE
    SET private = excluded.private, opened = true, opening_in = excluded.opening_in, opening_seq = h.seq
    WHERE h.opened_in IS DISTINCT FROM excluded.opening_in AND h.opening_in IS DISTINCT FROM excluded.opening_in;

    SELECT h.opening_seq, h.seq INTO since_, head_ FROM room_heads h
    WHERE h.partition = partition_ AND h.room_id = room AND h.opening_in = epoch_ AND h.opened_in IS DISTINCT FROM epoch_;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT coalesce(array_agg(DISTINCT named.user_id), '{}') INTO changed_
    FROM events e CROSS JOIN LATERAL (
        SELECT (added.value ->> 'user')::uuid AS user_id
        FROM jsonb_array_elements(e.body::jsonb -> 'access' -> 'members') AS added (value)
        UNION ALL
        SELECT removed.value::uuid FROM jsonb_array_elements_text(e.body::jsonb -> 'access' -> 'removed') AS removed (value)
    ) named
    WHERE e.partition = partition_ AND e.room_id = room AND e.seq > since_ AND e.kind = 3;

    INSERT INTO room_members AS m (partition, room_id, user_id, role, since_seq, opened_in)
    SELECT partition_, room, g.user_id, g.role, head_, epoch_
    FROM unnest(users, roles) AS g (user_id, role) WHERE g.user_id <> ALL (changed_)
    ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role, opened_in = excluded.opened_in;
    IF partial_ THEN
        RETURN;
    END IF;

    DELETE FROM room_members m
    WHERE m.partition = partition_ AND m.room_id = room AND m.opened_in IS DISTINCT FROM epoch_ AND m.user_id <> ALL (changed_);
    UPDATE room_heads h SET opened_in = epoch_ WHERE h.partition = partition_ AND h.room_id = room;
END
$$;

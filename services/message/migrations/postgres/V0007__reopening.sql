-- The epoch in which the room service last gave the log the visibility and the members of a room again; null: it never had to.
ALTER TABLE room_heads ADD COLUMN opened_in uuid;

-- After the log's database was restored to an older state: gives a room its present visibility and members, once in each epoch. A
-- later call is without effect, because events may have changed the room since: a late repeat must not bring a removed member back.
CREATE FUNCTION reopen_room(
    partition_ integer, room uuid, private_ boolean, users uuid[], roles smallint[], epoch_ uuid, partial_ boolean
) RETURNS void LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s'
AS $$
BEGIN
    PERFORM 1 FROM partitions p WHERE p.partition = partition_ FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM log l WHERE l.epoch = epoch_) THEN
        RETURN;
    END IF;
    INSERT INTO room_heads AS h (partition, room_id, seq, private, opened, opened_in)
    VALUES (partition_, room, 0, private_, true, epoch_)
    ON CONFLICT (partition, room_id) DO UPDATE SET private = excluded.private, opened = true, opened_in = excluded.opened_in
    WHERE h.opened_in IS DISTINCT FROM excluded.opened_in;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM room_members m
    WHERE m.partition = partition_ AND m.room_id = room AND NOT partial_ AND m.user_id <> ALL (users);
    INSERT INTO room_members AS m (partition, room_id, user_id, role, since_seq)
    SELECT partition_, room, g.user_id, g.role, h.seq
    FROM unnest(users, roles) AS g (user_id, role)
    JOIN room_heads h ON h.partition = partition_ AND h.room_id = room
    ON CONFLICT (partition, room_id, user_id) DO UPDATE SET role = excluded.role;
END
$$;

-- Whether a user may become a member of a room: the user is in fewer than `maximum` rooms, or in this room already. The lock lasts
-- until the end of the transaction, and each statement of a volatile function has a snapshot of its own: concurrent joins of one user
-- are counted one after the other.
CREATE FUNCTION has_place(member uuid, room uuid, maximum bigint) RETURNS boolean LANGUAGE plpgsql STRICT SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('rooms of ' || member, 0));
    RETURN (SELECT count(*) FROM (SELECT 1 FROM members WHERE user_id = member LIMIT maximum) counted) < maximum
        OR EXISTS (SELECT 1 FROM members WHERE room_id = room AND user_id = member);
END
$$;

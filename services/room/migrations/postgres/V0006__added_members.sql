-- The other user who added the member; null: the user joined or created the room, a server key added the user, or a program of the
-- release before did not record it.
ALTER TABLE members ADD COLUMN added_by uuid;

-- Why a user may not become a member of a room. 0: the user may, or is a member already. 1: the user is in `maximum` rooms. 2: another
-- user adds the user, and other users have added the user to half as many. With the lock of `has_place`, which programs of the release
-- before take, too: concurrent joins of one user are counted one after the other.
CREATE FUNCTION missing_place(member uuid, room uuid, maximum bigint, is_added boolean) RETURNS integer
LANGUAGE plpgsql STRICT SET search_path FROM CURRENT AS $$
DECLARE
    all_rooms bigint;
    added_rooms bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('rooms of ' || member, 0));
    IF EXISTS (SELECT 1 FROM members WHERE room_id = room AND user_id = member) THEN
        RETURN 0;
    END IF;
    SELECT count(*), count(counted.added_by) INTO all_rooms, added_rooms
    FROM (SELECT m.added_by FROM members m WHERE m.user_id = member LIMIT maximum) counted;
    RETURN CASE WHEN all_rooms >= maximum THEN 1 WHEN is_added AND added_rooms >= maximum / 2 THEN 2 ELSE 0 END;
END
$$;

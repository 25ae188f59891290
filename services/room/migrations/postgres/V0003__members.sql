-- `owner_id` and `owner_name` now name the creator. The owner is the member with the role `owner`.
ALTER TABLE rooms ADD COLUMN private boolean NOT NULL DEFAULT false;

-- Under the same name: programs recognise a name that is taken by the name of this index.
DROP INDEX rooms_name;
CREATE UNIQUE INDEX rooms_name ON rooms (folded_name) WHERE NOT private;
CREATE INDEX rooms_public ON rooms (created_at_ms, id) WHERE NOT private;

CREATE TABLE members (
    room_id uuid NOT NULL,
    user_id uuid NOT NULL,
    username text NOT NULL,
    -- 1 member, 2 admin, 3 owner. Each room has exactly one owner.
    role smallint NOT NULL,
    joined_at_ms bigint NOT NULL,
    PRIMARY KEY (room_id, user_id)
);
CREATE INDEX members_user ON members (user_id, room_id);
CREATE INDEX members_order ON members (room_id, role DESC, joined_at_ms, user_id);

-- Rooms that the log has not opened yet.
CREATE TABLE openings (room_id uuid PRIMARY KEY);

-- The change of visibility or members that the event describes, as JSON.
ALTER TABLE outbox ADD COLUMN access text;

INSERT INTO members (room_id, user_id, username, role, joined_at_ms) SELECT id, owner_id, owner_name, 3, created_at_ms FROM rooms;
INSERT INTO openings (room_id) SELECT id FROM rooms;

-- Triggers, so that rooms of programs of the release before also get an owner and an opening. An import inserts the rooms before
-- `room_ids` and has the members and openings themselves.
CREATE FUNCTION room_created() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM room_ids WHERE id = new.id) THEN
        INSERT INTO members (room_id, user_id, username, role, joined_at_ms)
        VALUES (new.id, new.owner_id, new.owner_name, 3, new.created_at_ms);
        INSERT INTO openings (room_id) VALUES (new.id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER room_created AFTER INSERT ON rooms FOR EACH ROW EXECUTE FUNCTION room_created();

-- The opening stays: the log opens a deleted room, too, so that `roomDeleted` can close it.
CREATE FUNCTION room_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM members WHERE room_id = old.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER room_deleted AFTER DELETE ON rooms FOR EACH ROW EXECUTE FUNCTION room_deleted();

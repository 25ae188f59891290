-- Names are unique among public rooms only, and SQLite drops the constraint of a column only together with its table. The search
-- index stays as it is: it knows the rooms by their ids in `room_numbers`.
DROP VIEW room_pieces;
CREATE TABLE rooms_with_privacy (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    folded_name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Name and description as searches compare them.
    search TEXT NOT NULL,
    -- The creator. The owner is the member with the role `owner`.
    owner_id BLOB NOT NULL,
    owner_name TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- Counts the changes; each has the outbox row of that number.
    revision INTEGER NOT NULL,
    private INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO rooms_with_privacy (id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision)
SELECT id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision FROM rooms ORDER BY created_at_ms, id;
DROP TABLE rooms;
ALTER TABLE rooms_with_privacy RENAME TO rooms;
CREATE UNIQUE INDEX rooms_name ON rooms (folded_name) WHERE NOT private;
CREATE INDEX rooms_newest ON rooms (created_at_ms, id);
CREATE INDEX rooms_public ON rooms (created_at_ms, id) WHERE NOT private;

-- As before; they went with the table.
CREATE VIEW room_pieces AS SELECT id, (
    WITH RECURSIVE rest (text) AS (VALUES (search) UNION ALL SELECT substr(text, 2) FROM rest WHERE length(text) > 1)
    SELECT group_concat(hex(substr(text, 1, 1)) || ' ' || hex(substr(text, 1, 2)) || ' ' || hex(substr(text, 1, 3)), ' ') FROM rest
) AS pieces FROM rooms;

CREATE TRIGGER room_search_insert AFTER INSERT ON rooms BEGIN
    INSERT INTO room_numbers (id) VALUES (new.id);
    INSERT INTO room_search (rowid, pieces) SELECT number, pieces FROM room_numbers JOIN room_pieces USING (id) WHERE id = new.id;
END;

CREATE TRIGGER room_search_update AFTER UPDATE OF search ON rooms WHEN old.search <> new.search BEGIN
    UPDATE room_search SET pieces = (SELECT pieces FROM room_pieces WHERE id = new.id)
    WHERE rowid = (SELECT number FROM room_numbers WHERE id = new.id);
END;

CREATE TRIGGER room_search_delete AFTER DELETE ON rooms BEGIN
    DELETE FROM room_search WHERE rowid = (SELECT number FROM room_numbers WHERE id = old.id);
    DELETE FROM room_numbers WHERE id = old.id;
END;

CREATE TABLE members (
    room_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    username TEXT NOT NULL,
    -- 1 member, 2 admin, 3 owner. Each room has exactly one owner.
    role INTEGER NOT NULL,
    joined_at_ms INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_user ON members (user_id, room_id);
CREATE INDEX members_order ON members (room_id, role DESC, joined_at_ms, user_id);

-- Rooms that the log has not opened yet.
CREATE TABLE openings (room_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

-- The change of visibility or members that the event describes, as JSON.
ALTER TABLE outbox ADD COLUMN access TEXT;

INSERT INTO members (room_id, user_id, username, role, joined_at_ms) SELECT id, owner_id, owner_name, 3, created_at_ms FROM rooms;
INSERT INTO openings (room_id) SELECT id FROM rooms;

-- Triggers, so that rooms of a program of the release before also get an owner and an opening. An import inserts the rooms before
-- `room_ids` and has the members and openings themselves.
CREATE TRIGGER room_created AFTER INSERT ON rooms WHEN EXISTS (SELECT 1 FROM room_ids WHERE id = new.id) BEGIN
    INSERT INTO members (room_id, user_id, username, role, joined_at_ms)
    VALUES (new.id, new.owner_id, new.owner_name, 3, new.created_at_ms);
    INSERT INTO openings (room_id) VALUES (new.id);
END;

-- The opening stays: the log opens a deleted room, too, so that `roomDeleted` can close it.
CREATE TRIGGER room_deleted AFTER DELETE ON rooms BEGIN
    DELETE FROM members WHERE room_id = old.id;
END;

CREATE TABLE rooms (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    folded_name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    -- Name and description as searches compare them.
    search TEXT NOT NULL,
    owner_id BLOB NOT NULL,
    owner_name TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- Counts the changes; each has the outbox row of that number.
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX rooms_newest ON rooms (created_at_ms, id);

-- Every id ever given to a room: a late repeat of a creation must not bring a deleted one back.
CREATE TABLE room_ids (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

-- What the log is still owed, in the order of the numbers within each room.
CREATE TABLE outbox (
    room_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    sender_id BLOB NOT NULL,
    sender_name TEXT NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL,
    closes_room INTEGER NOT NULL,
    PRIMARY KEY (room_id, number)
) STRICT;

CREATE TABLE rooms (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    folded_name text NOT NULL,
    description text NOT NULL,
    -- Name and description as searches compare them.
    search text NOT NULL,
    owner_id uuid NOT NULL,
    owner_name text NOT NULL,
    created_at_ms bigint NOT NULL,
    -- Counts the changes; each has the outbox row of that number.
    revision bigint NOT NULL
);
CREATE UNIQUE INDEX rooms_name ON rooms (folded_name);
CREATE INDEX rooms_newest ON rooms (created_at_ms, id);

-- Every id ever given to a room: a late repeat of a creation must not bring a deleted one back.
CREATE TABLE room_ids (id uuid PRIMARY KEY);

-- What the log is still owed, in the order of the numbers within each room.
CREATE TABLE outbox (
    room_id uuid NOT NULL,
    number bigint NOT NULL,
    id uuid NOT NULL UNIQUE,
    sender_id uuid NOT NULL,
    sender_name text NOT NULL,
    event text NOT NULL,
    data text NOT NULL,
    closes_room boolean NOT NULL,
    PRIMARY KEY (room_id, number)
);

-- Reactions: events of kind 4 with op 5. They exist only from format 4 of the log on.
CREATE TABLE reactions (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    user_id BLOB NOT NULL,
    name TEXT NOT NULL,
    username TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (partition, room_id, seq, user_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX reactions_at ON reactions (partition, room_id, seq, name, at, user_id);

-- A JSON array of {name, count} in the order of the first reaction with each name; null without reactions.
ALTER TABLE message_state ADD COLUMN reactions TEXT;

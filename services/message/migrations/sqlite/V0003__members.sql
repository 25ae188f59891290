-- Format 1: the log of the release before, whose rooms need no opening. Format 2: a room accepts events after it was opened.
ALTER TABLE log ADD COLUMN format INTEGER NOT NULL DEFAULT 1;
ALTER TABLE log ADD COLUMN rooms_opened INTEGER NOT NULL DEFAULT 0;

ALTER TABLE room_heads ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
ALTER TABLE room_heads ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;

-- Changed only by access events, so that a membership begins and ends at a definite seq.
CREATE TABLE room_members (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    role INTEGER NOT NULL,
    since_seq INTEGER NOT NULL,
    PRIMARY KEY (partition, room_id, user_id)
) STRICT, WITHOUT ROWID;

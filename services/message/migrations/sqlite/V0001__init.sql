-- One row: which log this is. The fingerprint names the file it was last opened as.
CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    partitions INTEGER NOT NULL
) STRICT;

CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    head INTEGER NOT NULL
) STRICT;

CREATE TABLE room_heads (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (partition, room_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    id BLOB NOT NULL,
    sender_id BLOB NOT NULL,
    client_id TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (partition, position),
    UNIQUE (partition, room_id, seq),
    UNIQUE (partition, room_id, sender_id, client_id)
) STRICT;

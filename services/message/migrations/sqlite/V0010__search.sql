-- The search of messages. A task of the service reads the log and fills these tables, so that an append does no work for the search.

-- The messages that searches find. The id is the order of searches: the time of the message in ms, then a number within the
-- millisecond in the lower 20 bits. Deleted messages and messages without words have no row.
CREATE TABLE search (
    id INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    -- The terms of the present text, of the room and of the sender.
    terms TEXT NOT NULL,
    UNIQUE (partition, room_id, seq)
) STRICT;

-- The index of the terms. A removal names the terms, so that nothing of a deleted text remains in it.
CREATE VIRTUAL TABLE search_terms USING fts5 (terms, tokenize = 'ascii', content = 'search', content_rowid = 'id', detail = none);
INSERT INTO search_terms (search_terms, rank) VALUES ('secure-delete', 1);

-- How far the log is in the index: the events of a partition up to this position are.
CREATE TABLE search_progress (
    partition INTEGER PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT;

-- Deleted rooms whose messages remain to be removed from the index.
CREATE TABLE search_closed (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    PRIMARY KEY (partition, room_id)
) STRICT, WITHOUT ROWID;

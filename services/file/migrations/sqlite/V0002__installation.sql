-- Which installation this is, as the owner object beside the files' bytes names it. Empty texts: it has just arrived from another
-- store, and is a new installation. `turn` is in the owner object, or `next` already.
CREATE TABLE installation (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, turn TEXT NOT NULL, next TEXT NOT NULL) STRICT;

-- Which installation this is, as the owner object beside the files' bytes names it. Empty texts: it has just arrived from another
-- store, and is a new installation. `turn` is in the owner object, or `next` already.
CREATE TABLE installation (one boolean PRIMARY KEY CHECK (one), id text NOT NULL, turn text NOT NULL, next text NOT NULL);

-- The operations of the last 10 minutes that succeed only once: a repeat of a call whose answer was lost finds its record.
CREATE TABLE operations (
    id BLOB PRIMARY KEY,
    -- The user, the room or the file that the operation is about.
    subject BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_at ON operations (at_ms);

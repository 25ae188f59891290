-- The operations of the last 10 minutes that succeed only once: a repeat of a call whose answer was lost finds its record.
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    -- The user, the room or the file that the operation is about.
    subject uuid NOT NULL,
    at_ms bigint NOT NULL
);
CREATE INDEX operations_at ON operations (at_ms);

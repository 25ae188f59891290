-- The operations of the last 10 minutes that succeed only once: a repeat of a call whose answer was lost finds its record.
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    -- The user, the room or the file that the operation is about.
    subject uuid NOT NULL,
    at_ms bigint NOT NULL
);
CREATE INDEX operations_at ON operations (at_ms);

-- Users whose accounts were deleted. They cannot become members any more.
CREATE TABLE gone_users (
    user_id uuid PRIMARY KEY,
    username text NOT NULL,
    -- When no room of the user was left; null: the user is still in a room.
    left_at_ms bigint,
    -- Whether no addition to a room can be in progress any more.
    settled boolean NOT NULL DEFAULT false
);
CREATE INDEX gone_users_unsettled ON gone_users (user_id) WHERE NOT settled;

-- The log's epoch in which a room must be opened again, because the log's database was restored to an older state; null: the log
-- has never opened the room.
ALTER TABLE openings ADD COLUMN epoch uuid;

-- The log's epoch that the rooms were last opened in, or are being opened in.
CREATE TABLE log_epoch (one boolean PRIMARY KEY CHECK (one), epoch uuid NOT NULL);

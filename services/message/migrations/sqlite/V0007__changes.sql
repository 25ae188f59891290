-- Changes of messages: edits (op 1), deletions (2), pins (3) and ends of pins (4) are events of kind 4 with a target, the seq of
-- their message. They exist only from format 3 of the log on.
ALTER TABLE events ADD COLUMN target INTEGER;
ALTER TABLE events ADD COLUMN op INTEGER;

-- What changes have made of a message. A message that was never changed has no row.
CREATE TABLE message_state (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    -- The last change; text_revision: the last edit or the deletion, 0 without.
    revision INTEGER NOT NULL,
    text_revision INTEGER NOT NULL,
    -- The text of the last edit; null without an edit, and for a deleted message.
    content TEXT,
    edited_at INTEGER,
    deleted_at INTEGER,
    deleted_by BLOB,
    deleted_by_name TEXT,
    -- The change that pinned the message; null while it is not pinned.
    pinned INTEGER,
    -- Whether texts of the deleted message remain to be erased; those of its edits up to erased_to are erased.
    to_erase INTEGER NOT NULL DEFAULT 0,
    erased_to INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (partition, room_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_state_revision ON message_state (partition, room_id, revision);
CREATE INDEX message_state_pinned ON message_state (partition, room_id, pinned) WHERE pinned IS NOT NULL;
CREATE INDEX message_state_to_erase ON message_state (deleted_at) WHERE to_erase;

-- The edits of each message. An index of events would have to be built from all events.
CREATE TABLE message_edits (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    target INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (partition, room_id, target, seq)
) STRICT, WITHOUT ROWID;

-- The runs of consecutive changes in each room, so that a page of history skips them: between two runs there is at least one other
-- event. Unlike an index of all other events, they cost an append of messages nothing.
CREATE TABLE change_runs (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    PRIMARY KEY (partition, room_id, first_seq)
) STRICT, WITHOUT ROWID;

-- As before, with the columns of changes.
DROP TRIGGER events_keep_values;
CREATE TRIGGER events_keep_values BEFORE UPDATE ON events
WHEN OLD.kind = 3
    OR NEW.body IS NOT json_object('sender_username', json_extract(OLD.body, '$.sender_username'))
    OR (NEW.partition, NEW.position, NEW.room_id, NEW.seq, NEW.kind, NEW.id, NEW.sender_id, NEW.client_id, NEW.created_at)
        IS NOT (OLD.partition, OLD.position, OLD.room_id, OLD.seq, OLD.kind, OLD.id, OLD.sender_id, OLD.client_id, OLD.created_at)
    OR NEW.target IS NOT OLD.target OR NEW.op IS NOT OLD.op
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

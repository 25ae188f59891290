-- Files are deleted with the last message that has them. Which messages (kinds 1 and 2) have which files; a deletion removes the rows of
-- its message.
CREATE TABLE file_uses (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    file_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (partition, room_id, file_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_uses_of_message ON file_uses (partition, room_id, seq);

-- The files of deleted messages, until it is certain that the file service has deleted them or that another message has them.
CREATE TABLE files_to_drop (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    file_id BLOB NOT NULL,
    PRIMARY KEY (partition, room_id, file_id)
) STRICT, WITHOUT ROWID;

-- A quote within a text has a backslash before it, so only a body with files contains this text.
INSERT OR IGNORE INTO file_uses (partition, room_id, file_id, seq)
SELECT e.partition, e.room_id, unhex(json_extract(f.value, '$.id'), '-'), e.seq FROM events e, json_each(e.body, '$.files') f
WHERE e.kind < 3 AND instr(e.body, ',"files":[') > 0;

CREATE TRIGGER events_note_file_uses AFTER INSERT ON events
WHEN NEW.kind < 3 AND instr(NEW.body, ',"files":[') > 0
BEGIN
    INSERT OR IGNORE INTO file_uses (partition, room_id, file_id, seq)
    SELECT NEW.partition, NEW.room_id, unhex(json_extract(f.value, '$.id'), '-'), NEW.seq FROM json_each(NEW.body, '$.files') f;
END;

-- Messages that are deleted but not erased yet.
INSERT OR IGNORE INTO files_to_drop (partition, room_id, file_id)
SELECT u.partition, u.room_id, u.file_id FROM message_state s
JOIN file_uses u ON u.partition = s.partition AND u.room_id = s.room_id AND u.seq = s.seq
WHERE s.deleted_at IS NOT NULL;
DELETE FROM file_uses WHERE EXISTS (
    SELECT 1 FROM message_state s WHERE s.partition = file_uses.partition AND s.room_id = file_uses.room_id AND s.seq = file_uses.seq
        AND s.deleted_at IS NOT NULL);

CREATE TRIGGER message_state_release_new AFTER INSERT ON message_state WHEN NEW.deleted_at IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO files_to_drop (partition, room_id, file_id)
    SELECT u.partition, u.room_id, u.file_id FROM file_uses u
    WHERE u.partition = NEW.partition AND u.room_id = NEW.room_id AND u.seq = NEW.seq;
    DELETE FROM file_uses WHERE partition = NEW.partition AND room_id = NEW.room_id AND seq = NEW.seq;
END;
CREATE TRIGGER message_state_release AFTER UPDATE OF deleted_at ON message_state WHEN NEW.deleted_at IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO files_to_drop (partition, room_id, file_id)
    SELECT u.partition, u.room_id, u.file_id FROM file_uses u
    WHERE u.partition = NEW.partition AND u.room_id = NEW.room_id AND u.seq = NEW.seq;
    DELETE FROM file_uses WHERE partition = NEW.partition AND room_id = NEW.room_id AND seq = NEW.seq;
END;

CREATE TABLE files (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    safe_inline INTEGER NOT NULL,
    uploader_id BLOB NOT NULL,
    uploader_name TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- Signs the links to the file.
    link_key BLOB NOT NULL,
    -- The one room it belongs to; null: its uploader's alone.
    room_id BLOB,
    -- What identifies the upload, with its uploader: the room it was for (all zeros: none) and the client's name for it.
    upload_room BLOB NOT NULL,
    client_message_id TEXT,
    -- The event that tells the room of it; null: it was uploaded without one.
    event_id BLOB,
    -- That event is in the log, or there is none.
    ready INTEGER NOT NULL,
    UNIQUE (uploader_id, upload_room, client_message_id)
) STRICT;
CREATE INDEX files_of_uploader ON files (uploader_id, created_at_ms, id);
CREATE INDEX files_of_room ON files (room_id, created_at_ms, id);
CREATE INDEX files_pending ON files (id) WHERE NOT ready;

-- Objects whose files are gone.
CREATE TABLE unwanted_objects (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Files that the log is still to show as deleted.
CREATE TABLE forgets (file_id BLOB PRIMARY KEY, room_id BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE files (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    size bigint NOT NULL,
    content_type text NOT NULL,
    sha256 text NOT NULL,
    safe_inline boolean NOT NULL,
    uploader_id uuid NOT NULL,
    uploader_name text NOT NULL,
    created_at_ms bigint NOT NULL,
    -- Signs the links to the file.
    link_key bytea NOT NULL,
    -- The one room it belongs to; null: its uploader's alone.
    room_id uuid,
    -- What identifies the upload, with its uploader: the room it was for (all zeros: none) and the client's name for it.
    upload_room uuid NOT NULL,
    client_message_id text,
    -- The event that tells the room of it; null: it was uploaded without one.
    event_id uuid,
    -- That event is in the log, or there is none.
    ready boolean NOT NULL,
    UNIQUE (uploader_id, upload_room, client_message_id)
);
CREATE INDEX files_of_uploader ON files (uploader_id, created_at_ms, id);
CREATE INDEX files_of_room ON files (room_id, created_at_ms, id);
CREATE INDEX files_pending ON files (id) WHERE NOT ready;

-- Objects whose files are gone.
CREATE TABLE unwanted_objects (id uuid PRIMARY KEY);

-- Files that the log is still to show as deleted.
CREATE TABLE forgets (file_id uuid PRIMARY KEY, room_id uuid NOT NULL);

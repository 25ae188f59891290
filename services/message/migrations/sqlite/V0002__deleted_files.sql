-- Files that are shown as deleted wherever the events of their room name them.
CREATE TABLE deleted_files (
    partition INTEGER NOT NULL,
    room_id BLOB NOT NULL,
    file_id BLOB NOT NULL,
    PRIMARY KEY (partition, room_id, file_id)
) STRICT, WITHOUT ROWID;

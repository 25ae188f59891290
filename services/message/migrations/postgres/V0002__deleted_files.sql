-- Files that are shown as deleted wherever the events of their room name them.
CREATE TABLE deleted_files (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    file_id uuid NOT NULL,
    PRIMARY KEY (partition, room_id, file_id)
);

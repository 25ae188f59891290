-- What each user stores. The database itself counts, so that it also counts what a program of the release before writes.
CREATE TABLE uploaders (
    user_id BLOB PRIMARY KEY,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- Files with a `client_message_id`.
    named INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO uploaders (user_id, files, bytes, named)
SELECT uploader_id, count(*), sum(size), count(client_message_id) FROM files GROUP BY uploader_id;

CREATE TRIGGER files_added AFTER INSERT ON files BEGIN
    INSERT INTO uploaders (user_id, files, bytes, named)
    SELECT new.uploader_id, 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM uploaders WHERE user_id = new.uploader_id);
    UPDATE uploaders
    SET files = files + 1, bytes = bytes + new.size, named = named + (new.client_message_id IS NOT NULL)
    WHERE user_id = new.uploader_id;
END;

CREATE TRIGGER files_deleted AFTER DELETE ON files BEGIN
    UPDATE uploaders
    SET files = files - 1, bytes = bytes - old.size, named = named - (old.client_message_id IS NOT NULL)
    WHERE user_id = old.uploader_id;
END;

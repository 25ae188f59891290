-- What each user stores. The database itself counts, so that it also counts what a program of the release before writes.
CREATE TABLE uploaders (
    user_id uuid PRIMARY KEY,
    files bigint NOT NULL,
    bytes bigint NOT NULL,
    -- Files with a `client_message_id`.
    named bigint NOT NULL
);

-- Each statement counts its files at once, in the order of the users, so that no two statements wait for each other.
CREATE FUNCTION files_added() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO uploaders AS u (user_id, files, bytes, named)
    SELECT uploader_id, count(*), sum(size), count(client_message_id) FROM added GROUP BY uploader_id ORDER BY uploader_id
    ON CONFLICT (user_id) DO UPDATE
    SET files = u.files + excluded.files, bytes = u.bytes + excluded.bytes, named = u.named + excluded.named;
    RETURN NULL;
END
$$;
CREATE TRIGGER files_added AFTER INSERT ON files REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION files_added();

CREATE FUNCTION files_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM 1 FROM uploaders WHERE user_id IN (SELECT uploader_id FROM deleted) ORDER BY user_id FOR UPDATE;
    UPDATE uploaders u SET files = u.files - gone.files, bytes = u.bytes - gone.bytes, named = u.named - gone.named
    FROM (
        SELECT uploader_id, count(*) AS files, sum(size)::bigint AS bytes, count(client_message_id) AS named
        FROM deleted GROUP BY uploader_id
    ) gone
    WHERE u.user_id = gone.uploader_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER files_deleted AFTER DELETE ON files REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION files_deleted();

-- Creating the triggers has locked the table, so no file is counted twice or missed.
INSERT INTO uploaders (user_id, files, bytes, named)
SELECT uploader_id, count(*), sum(size), count(client_message_id) FROM files GROUP BY uploader_id;

CREATE TABLE server_keys (
    id            BLOB PRIMARY KEY,
    name          TEXT NOT NULL,
    sha256        BLOB NOT NULL,
    -- Names, separated by spaces.
    scopes        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id         BLOB PRIMARY KEY,
    at_ms      INTEGER NOT NULL,
    -- NULL: an operator, with a program on the server.
    key_id     BLOB,
    act        TEXT NOT NULL,
    object     TEXT NOT NULL,
    -- A JSON object.
    details    TEXT,
    request_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_by_time ON audit (at_ms, id);

-- The audit only grows. The service deletes entries after 90 days, and cannot delete them earlier.
CREATE TRIGGER audit_keeps_values BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
WHEN OLD.at_ms >= CAST(strftime('%s', 'now') AS INTEGER) * 1000 - 7776000000 BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE INDEX users_by_avatar ON users (avatar_file_id, id) WHERE avatar_file_id IS NOT NULL;

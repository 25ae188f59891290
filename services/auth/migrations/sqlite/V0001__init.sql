CREATE TABLE users (
    id              BLOB PRIMARY KEY,
    username        TEXT NOT NULL,
    -- Names are compared by this form, computed in the service.
    username_folded TEXT NOT NULL UNIQUE,
    password_hash   TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: the newest number stays known when its revocation is purged.
CREATE TABLE revocation_head (
    single INTEGER PRIMARY KEY DEFAULT 1 CHECK (single = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_head (number) VALUES (0);

CREATE TABLE revocations (
    number        INTEGER PRIMARY KEY,
    session_id    BLOB NOT NULL UNIQUE,
    user_id       BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_expiry ON revocations (expires_at_ms);

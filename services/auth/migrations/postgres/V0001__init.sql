CREATE TABLE users (
    id              UUID PRIMARY KEY,
    username        TEXT NOT NULL,
    -- Names are compared by this form, computed in the service.
    username_folded TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash   TEXT NOT NULL,
    created_at_ms   BIGINT NOT NULL
);

-- One row. Its lock makes the numbers of revocations dense and equal to their commit order; a SEQUENCE would do neither.
CREATE TABLE revocation_head (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    number BIGINT NOT NULL
);
INSERT INTO revocation_head (number) VALUES (0);

CREATE TABLE revocations (
    number        BIGINT PRIMARY KEY,
    session_id    UUID NOT NULL UNIQUE,
    user_id       UUID NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX revocations_by_expiry ON revocations (expires_at_ms);

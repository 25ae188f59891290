-- Accounts get a state and a profile. The name of a deleted account stays in its unique columns until `free_name_at_ms`.
ALTER TABLE users ADD COLUMN state INTEGER NOT NULL DEFAULT 0; -- 0 active, 1 suspended, 2 deleted
ALTER TABLE users ADD COLUMN display_name TEXT;
ALTER TABLE users ADD COLUMN avatar_file_id BLOB;
ALTER TABLE users ADD COLUMN data TEXT NOT NULL DEFAULT '{}';
-- Tokens issued before this second are revoked: the highest `not_before_s` of the user's revocations.
ALTER TABLE users ADD COLUMN tokens_from_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN free_name_at_ms INTEGER;
CREATE INDEX users_by_free_name ON users (free_name_at_ms) WHERE free_name_at_ms IS NOT NULL;

-- 0 a session, 1 the tokens of a user before a time, 2 all tokens of a user, 3 the end of an earlier 2. In the kinds about a user,
-- `session_id` is a UUIDv8, which no session has.
ALTER TABLE revocations ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revocations ADD COLUMN not_before_s INTEGER;
ALTER TABLE revocations ADD COLUMN except_session_id BLOB;
CREATE INDEX revocations_of_users ON revocations (user_id, kind) WHERE kind <> 0;

CREATE TABLE sessions (
    id                  BLOB PRIMARY KEY,
    user_id             BLOB NOT NULL,
    created_at_ms       INTEGER NOT NULL,
    last_seen_at_ms     INTEGER NOT NULL,
    -- When no token of the session is valid any more, refresh tokens included.
    expires_at_ms       INTEGER NOT NULL,
    -- The latest expiry of an access token.
    token_expires_at_ms INTEGER NOT NULL,
    user_agent          TEXT NOT NULL,
    address             TEXT NOT NULL,
    -- Only for sessions with refresh tokens: the SHA-256 of the newest one and of the one before it.
    refresh_sha256      BLOB,
    previous_sha256     BLOB,
    generation          INTEGER NOT NULL DEFAULT 0,
    -- When the token before the newest one was first used.
    used_at_ms          INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id, created_at_ms, id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);

-- A revoked session ends.
CREATE TRIGGER revoked_session_ends AFTER INSERT ON revocations BEGIN
    DELETE FROM sessions WHERE id = NEW.session_id;
END;

CREATE TABLE invites (
    id            BLOB PRIMARY KEY,
    code_sha256   BLOB NOT NULL UNIQUE,
    uses_left     INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invites_by_expiry ON invites (expires_at_ms);

-- One per user at most: a new one replaces the one before.
CREATE TABLE password_resets (
    user_id       BLOB PRIMARY KEY,
    token_sha256  BLOB NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    used_at_ms    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX password_resets_by_expiry ON password_resets (expires_at_ms);

-- Deleted users that the room service must still remove from rooms.
CREATE TABLE leaving (
    user_id       BLOB PRIMARY KEY,
    username      TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

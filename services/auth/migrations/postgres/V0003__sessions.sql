-- Accounts get a state and a profile. The name of a deleted account stays in its unique columns until `free_name_at_ms`, so that
-- replicas of the version before cannot give it away either.
ALTER TABLE users ADD COLUMN state SMALLINT NOT NULL DEFAULT 0; -- 0 active, 1 suspended, 2 deleted
ALTER TABLE users ADD COLUMN display_name TEXT;
ALTER TABLE users ADD COLUMN avatar_file_id UUID;
ALTER TABLE users ADD COLUMN data TEXT NOT NULL DEFAULT '{}';
-- Tokens issued before this second are revoked: the highest `not_before_s` of the user's revocations.
ALTER TABLE users ADD COLUMN tokens_from_s BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN free_name_at_ms BIGINT;
CREATE INDEX users_by_free_name ON users (free_name_at_ms) WHERE free_name_at_ms IS NOT NULL;

-- 0 a session, 1 the tokens of a user before a time, 2 all tokens of a user, 3 the end of an earlier 2. Replicas of the version
-- before read `session_id` as the id of a session; in the kinds about a user it is a UUIDv8, which no session has.
ALTER TABLE revocations ADD COLUMN kind SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE revocations ADD COLUMN not_before_s BIGINT;
ALTER TABLE revocations ADD COLUMN except_session_id UUID;
CREATE INDEX revocations_of_users ON revocations (user_id, kind) WHERE kind <> 0;

CREATE TABLE sessions (
    id                  UUID PRIMARY KEY,
    user_id             UUID NOT NULL,
    created_at_ms       BIGINT NOT NULL,
    last_seen_at_ms     BIGINT NOT NULL,
    -- When no token of the session is valid any more, refresh tokens included.
    expires_at_ms       BIGINT NOT NULL,
    -- The latest expiry of an access token.
    token_expires_at_ms BIGINT NOT NULL,
    user_agent          TEXT NOT NULL,
    address             TEXT NOT NULL,
    -- Only for sessions with refresh tokens: the SHA-256 of the newest one and of the one before it.
    refresh_sha256      BYTEA,
    previous_sha256     BYTEA,
    generation          BIGINT NOT NULL DEFAULT 0,
    -- When the token before the newest one was first used.
    used_at_ms          BIGINT
);
CREATE INDEX sessions_by_user ON sessions (user_id, created_at_ms, id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at_ms);

-- A revoked session ends, whichever version of the service revokes it.
CREATE FUNCTION end_revoked_session() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM sessions WHERE id = NEW.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER revoked_session_ends AFTER INSERT ON revocations FOR EACH ROW EXECUTE FUNCTION end_revoked_session();

CREATE TABLE invites (
    id            UUID PRIMARY KEY,
    code_sha256   BYTEA NOT NULL UNIQUE,
    uses_left     BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);
CREATE INDEX invites_by_expiry ON invites (expires_at_ms);

-- One per user at most: a new one replaces the one before.
CREATE TABLE password_resets (
    user_id       UUID PRIMARY KEY,
    token_sha256  BYTEA NOT NULL UNIQUE,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    used_at_ms    BIGINT
);
CREATE INDEX password_resets_by_expiry ON password_resets (expires_at_ms);

-- Deleted users that the room service must still remove from rooms.
CREATE TABLE leaving (
    user_id       UUID PRIMARY KEY,
    username      TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

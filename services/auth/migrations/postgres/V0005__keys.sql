CREATE TABLE server_keys (
    id            UUID PRIMARY KEY,
    name          TEXT NOT NULL,
    sha256        BYTEA NOT NULL,
    -- Names, separated by spaces.
    scopes        TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE audit (
    id         UUID PRIMARY KEY,
    at_ms      BIGINT NOT NULL,
    -- NULL: an operator, with a program on the server.
    key_id     UUID,
    act        TEXT NOT NULL,
    object     TEXT NOT NULL,
    -- A JSON object.
    details    TEXT,
    request_id TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at_ms, id);

-- The audit only grows. The service deletes entries after 90 days and cannot delete them earlier, because only the role
-- that migrates the schema can remove a trigger.
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at_ms < extract(epoch FROM now()) * 1000 - 7776000000 THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_keeps_rows BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_keeps_all_rows BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();

CREATE INDEX users_by_avatar ON users (avatar_file_id, id) WHERE avatar_file_id IS NOT NULL;

-- The name that clients show beside the username, and the form in which searches compare it, computed in the service. A
-- program of the version before changes `display_name` and `claimed_name` alone. Then `shown_name` differs from them,
-- and searches skip it, until the service has renewed both columns.
ALTER TABLE users ADD COLUMN shown_name TEXT;
ALTER TABLE users ADD COLUMN shown_folded TEXT COLLATE "C";
CREATE INDEX users_with_outdated_name ON users (id)
WHERE shown_name IS DISTINCT FROM coalesce(display_name, claimed_name);

-- Searches of active users by the beginning of a name. What has been made by hand before is left as it is.
CREATE INDEX IF NOT EXISTS users_by_username ON users (username_folded, id) WHERE state = 0;
CREATE INDEX users_by_shown_name ON users (shown_folded, id) WHERE state = 0 AND shown_folded IS NOT NULL;

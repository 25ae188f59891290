-- Names that look alike have the same skeleton, computed in the service. It is missing until the service has filled it in, and
-- where an older account has it.
ALTER TABLE users ADD COLUMN username_skeleton TEXT COLLATE "C";
CREATE UNIQUE INDEX users_by_skeleton ON users (username_skeleton);
CREATE INDEX users_without_skeleton ON users (id) WHERE username_skeleton IS NULL;

-- A row with `name_of` reserves a former name of that user until `free_name_at_ms`, because tokens still carry the name. It looks
-- like a deleted account.
ALTER TABLE users ADD COLUMN name_of BLOB;
CREATE INDEX users_by_former_name ON users (name_of, id) WHERE name_of IS NOT NULL;

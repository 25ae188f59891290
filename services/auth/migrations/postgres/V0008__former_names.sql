-- A row with `name_of` reserves a former name of that user until `free_name_at_ms`, because tokens still carry the name. It looks
-- like a deleted account, so that replicas of the version before cannot give the name away either.
ALTER TABLE users ADD COLUMN name_of UUID;
CREATE INDEX users_by_former_name ON users (name_of, id) WHERE name_of IS NOT NULL;

-- Users of the app's own issuers have no password. The claims are those of their newest token, beside the profile that the user
-- chooses.
ALTER TABLE users ADD COLUMN issuer TEXT;
ALTER TABLE users ADD COLUMN claimed_name TEXT;
ALTER TABLE users ADD COLUMN claimed_picture TEXT;
-- When the claims last changed.
ALTER TABLE users ADD COLUMN claimed_at_ms BIGINT NOT NULL DEFAULT 0;

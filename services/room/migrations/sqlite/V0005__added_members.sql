-- The other user who added the member; null: the user joined or created the room, a server key added the user, or a program of the
-- release before did not record it.
ALTER TABLE members ADD COLUMN added_by BLOB;

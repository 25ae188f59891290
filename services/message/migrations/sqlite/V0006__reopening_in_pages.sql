-- A room may have more members than one call that opens it again. The room service then gives them to the log in several calls of one
-- epoch. The epoch of the newest first call, and the room's newest `seq` at that time:
ALTER TABLE room_heads ADD COLUMN opening_in BLOB;
ALTER TABLE room_heads ADD COLUMN opening_seq INTEGER;

-- The epoch in which a call last named the member.
ALTER TABLE room_members ADD COLUMN opened_in BLOB;

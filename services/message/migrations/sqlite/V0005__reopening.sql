-- The epoch in which the room service last gave the log the visibility and the members of a room again; null: it never had to.
ALTER TABLE room_heads ADD COLUMN opened_in BLOB;

-- Events never change, except that the body of a message or a shared file can be erased: what remains is the sender's name. They
-- are deleted only after their room was closed.
CREATE TRIGGER events_keep_values BEFORE UPDATE ON events
WHEN OLD.kind = 3
    OR NEW.body IS NOT json_object('sender_username', json_extract(OLD.body, '$.sender_username'))
    OR (NEW.partition, NEW.position, NEW.room_id, NEW.seq, NEW.kind, NEW.id, NEW.sender_id, NEW.client_id, NEW.created_at)
        IS NOT (OLD.partition, OLD.position, OLD.room_id, OLD.seq, OLD.kind, OLD.id, OLD.sender_id, OLD.client_id, OLD.created_at)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
CREATE TRIGGER events_keep_rows BEFORE DELETE ON events
WHEN NOT EXISTS (
    SELECT 1 FROM room_heads h WHERE h.partition = OLD.partition AND h.room_id = OLD.room_id AND h.closed)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

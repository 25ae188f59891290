-- Unread messages are counted by ordinals: the number of messages and files of a room up to an event. Ordinals begin with this
-- migration; earlier events have none. Changes of messages have none either, because they take no number.
ALTER TABLE events ADD COLUMN ordinal INTEGER;
-- The newest ordinal.
ALTER TABLE room_heads ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
-- The newest seq before the first ordinal; null while a room of the release before has no ordinal.
ALTER TABLE room_heads ADD COLUMN counted_from INTEGER;
-- When the newest message or file was appended; null without one that has an ordinal.
ALTER TABLE room_heads ADD COLUMN last_message_at INTEGER;

-- The read marker and the notifications of a member. read_seq and read_ordinal are null until the first mark of a member whom no
-- event has added: the marker then stands at since_seq, or where the ordinals begin if that is higher.
ALTER TABLE room_members ADD COLUMN read_seq INTEGER;
ALTER TABLE room_members ADD COLUMN read_ordinal INTEGER;
ALTER TABLE room_members ADD COLUMN read_at INTEGER;
-- When the member last marked messages as unread. Marks that the gateway received before are late.
ALTER TABLE room_members ADD COLUMN unread_at INTEGER;
ALTER TABLE room_members ADD COLUMN level INTEGER NOT NULL DEFAULT 0;
ALTER TABLE room_members ADD COLUMN level_until INTEGER;
CREATE INDEX room_members_user ON room_members (user_id);

-- The ordinal of a deleted message.
ALTER TABLE message_state ADD COLUMN deleted_ordinal INTEGER;
CREATE INDEX message_state_deleted ON message_state (partition, room_id, deleted_ordinal) WHERE deleted_ordinal IS NOT NULL;

-- As before, with the ordinal.
DROP TRIGGER events_keep_values;
CREATE TRIGGER events_keep_values BEFORE UPDATE ON events
WHEN OLD.kind = 3
    OR NEW.body IS NOT json_object('sender_username', json_extract(OLD.body, '$.sender_username'))
    OR (NEW.partition, NEW.position, NEW.room_id, NEW.seq, NEW.kind, NEW.id, NEW.sender_id, NEW.client_id, NEW.created_at)
        IS NOT (OLD.partition, OLD.position, OLD.room_id, OLD.seq, OLD.kind, OLD.id, OLD.sender_id, OLD.client_id, OLD.created_at)
    OR NEW.target IS NOT OLD.target OR NEW.op IS NOT OLD.op OR NEW.ordinal IS NOT OLD.ordinal
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

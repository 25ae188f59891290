-- Data of the app with messages, which exists only from format 5 of the log on. A message has it in its body; this is the data of the
-- last edit that has changed it. Null without such an edit, and for a deleted message.
ALTER TABLE message_state ADD COLUMN data TEXT;

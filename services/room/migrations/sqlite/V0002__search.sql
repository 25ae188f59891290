-- Searches find rooms by the pieces of `search`: all runs of one, two and three characters. The database keeps the index of them
-- itself, so that it also has what a program of the release before writes.
-- The pieces of each room. Their bytes stand in hexadecimal, so that the tokenizer takes every character.
CREATE VIEW room_pieces AS SELECT id, (
    WITH RECURSIVE rest (text) AS (VALUES (search) UNION ALL SELECT substr(text, 2) FROM rest WHERE length(text) > 1)
    SELECT group_concat(hex(substr(text, 1, 1)) || ' ' || hex(substr(text, 1, 2)) || ' ' || hex(substr(text, 1, 3)), ' ') FROM rest
) AS pieces FROM rooms;

-- The index knows rooms by number. Their rowids will not do: VACUUM and dumps may change those.
CREATE TABLE room_numbers (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;
CREATE VIRTUAL TABLE room_search USING fts5 (pieces, tokenize = 'ascii', content = '', contentless_delete = 1, detail = none);

INSERT INTO room_numbers (id) SELECT id FROM rooms ORDER BY created_at_ms, id;
INSERT INTO room_search (rowid, pieces) SELECT number, pieces FROM room_numbers JOIN room_pieces USING (id);

CREATE TRIGGER room_search_insert AFTER INSERT ON rooms BEGIN
    INSERT INTO room_numbers (id) VALUES (new.id);
    INSERT INTO room_search (rowid, pieces) SELECT number, pieces FROM room_numbers JOIN room_pieces USING (id) WHERE id = new.id;
END;

CREATE TRIGGER room_search_update AFTER UPDATE OF search ON rooms WHEN old.search <> new.search BEGIN
    UPDATE room_search SET pieces = (SELECT pieces FROM room_pieces WHERE id = new.id)
    WHERE rowid = (SELECT number FROM room_numbers WHERE id = new.id);
END;

CREATE TRIGGER room_search_delete AFTER DELETE ON rooms BEGIN
    DELETE FROM room_search WHERE rowid = (SELECT number FROM room_numbers WHERE id = old.id);
    DELETE FROM room_numbers WHERE id = old.id;
END;

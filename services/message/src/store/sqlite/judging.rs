//! Judges changes of messages, and applies them to the states of messages.

use std::sync::Arc;

use confab_common::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::{rooms, rows};
use crate::store::{Change, EventData, Kind, MAX_PINS, Op, Outcome, Refusal, Role};

/// The state of a message that judgements need; the default is that of a message that was never changed.
#[derive(Default)]
struct Present {
    text_revision: i64,
    content: Option<String>,
    data: Option<String>,
    is_deleted: bool,
    is_pinned: bool,
}

/// Returns the outcome of a change in a room that its sender may read; `None` if the change is to be appended.
pub fn judge(connection: &Connection, data: &Arc<EventData>, change: &Change) -> Result<Option<Outcome>> {
    let room = (data.partition, data.room);
    let refused = |refusal| Ok(Some(Outcome::Refused(refusal)));
    let original = rows::original(connection, room, change.target as i64)?;
    let Some(original) = original.filter(|event| event.data.kind != Kind::Change) else {
        return refused(Refusal::NoMessage);
    };
    let original = &original.data;
    if original.kind == Kind::System {
        return refused(Refusal::RoomEvent);
    }
    let is_author = data.sender == original.sender;
    let manages = || {
        let role = rooms::role(connection, room, data.sender)?;
        Ok::<_, confab_common::Error>(change.moderator || role.is_some_and(|role| role >= Role::Admin))
    };
    let may = match change.op {
        Op::Edit => is_author,
        Op::Delete => is_author || manages()?,
        Op::Pin | Op::Unpin => manages()?,
        Op::React => true,
    };
    if !may {
        return refused(Refusal::Forbidden);
    }
    if change.target_id.is_some_and(|id| id != original.id) {
        return refused(Refusal::OtherMessage);
    }
    let present = present(connection, data, change)?;
    if present.is_deleted {
        return Ok(Some(match change.op {
            Op::Delete | Op::Unpin => Outcome::unchanged(data),
            Op::Edit | Op::Pin | Op::React => Outcome::Refused(Refusal::Deleted),
        }));
    }
    let content = &data.body.content;
    if change.op == Op::Edit && content.is_empty() && !change.keeps_text && original.body.files.is_empty() {
        return refused(Refusal::Empty);
    }
    let app_data = &data.body.data;
    if change.op == Op::Edit && !app_data.is_empty() && original.kind == Kind::File {
        return refused(Refusal::NoData);
    }
    let changes = match change.op {
        Op::Edit => {
            let has = |data: &str| if data.is_empty() { "{}".to_owned() } else { data.to_owned() };
            let present_data = present.data.as_ref().unwrap_or(&original.body.data);
            (!change.keeps_text && content != present.content.as_ref().unwrap_or(&original.body.content))
                || (!app_data.is_empty() && has(app_data) != has(present_data))
        }
        Op::Delete => true,
        Op::Pin => !present.is_pinned,
        Op::Unpin => present.is_pinned,
        // The reactions of a batch are judged together.
        Op::React => true,
    };
    if !changes {
        return Ok(Some(Outcome::unchanged(data)));
    }
    if change.op == Op::Pin && pins(connection, data)? >= MAX_PINS {
        return refused(Refusal::TooManyPins);
    }
    if change.unchanged_since.is_some_and(|seq| present.text_revision as u64 > seq) {
        return refused(Refusal::Changed);
    }
    Ok(None)
}

fn present(connection: &Connection, data: &EventData, change: &Change) -> Result<Present> {
    let read =
        "/* judge */ SELECT text_revision, content, deleted_at IS NOT NULL, pinned IS NOT NULL, data FROM message_state
        WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
    let key = params![data.partition, data.room.as_bytes(), change.target as i64];
    let present = connection.prepare_cached(read)?.query_row(key, |row| {
        Ok(Present {
            text_revision: row.get(0)?,
            content: row.get(1)?,
            is_deleted: row.get(2)?,
            is_pinned: row.get(3)?,
            data: row.get(4)?,
        })
    });
    Ok(present.optional()?.unwrap_or_default())
}

fn pins(connection: &Connection, data: &EventData) -> Result<u32> {
    let count =
        "/* judge */ SELECT count(*) FROM message_state WHERE partition = ?1 AND room_id = ?2 AND pinned IS NOT NULL";
    let key = params![data.partition, data.room.as_bytes()];
    Ok(connection.prepare_cached(count)?.query_row(key, |row| row.get(0))?)
}

/// Returns an edit that keeps the text of its message with that text, so that the versions of the message have it.
pub fn with_text(connection: &Connection, data: &Arc<EventData>, change: &Change) -> Result<Arc<EventData>> {
    let mut data = data.clone();
    if let Some(message) = rows::message(connection, (data.partition, data.room), change.target)? {
        Arc::make_mut(&mut data).body.content = message.data.body.content.clone();
    }
    Ok(data)
}

/// Applies a change that was appended as this `seq`.
pub fn apply(connection: &Connection, data: &EventData, change: &Change, seq: i64, created_at_ms: i64) -> Result<()> {
    let (partition, room, target) = (data.partition, data.room.as_bytes(), change.target as i64);
    let key = params![partition, room, target, seq];
    connection
        .prepare_cached(
            "/* append */ INSERT INTO message_state (partition, room_id, seq, revision, text_revision) VALUES (?1, ?2, ?3, ?4, 0)
            ON CONFLICT (partition, room_id, seq) DO UPDATE SET revision = excluded.revision",
        )?
        .execute(key)?;
    match change.op {
        Op::Edit => {
            let edit = "/* append */ UPDATE message_state SET text_revision = ?4, content = coalesce(?5, content), edited_at = ?6,
                    data = coalesce(?7, data)
                WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
            let (content, app_data) = (&data.body.content, &data.body.data);
            let content = (!change.keeps_text).then_some(content);
            let app_data = (!app_data.is_empty()).then_some(app_data);
            let values = params![partition, room, target, seq, content, created_at_ms, app_data];
            connection.prepare_cached(edit)?.execute(values)?;
            let insert =
                "/* append */ INSERT INTO message_edits (partition, room_id, target, seq) VALUES (?1, ?2, ?3, ?4)";
            connection.prepare_cached(insert)?.execute(key)?;
        }
        Op::Delete => {
            let delete = "/* append */ UPDATE message_state SET text_revision = ?4, content = NULL, data = NULL, pinned = NULL, reactions = NULL,
                    deleted_at = ?5, deleted_by = ?6, deleted_by_name = ?7, to_erase = 1, deleted_ordinal = (
                        SELECT ordinal FROM events WHERE partition = ?1 AND room_id = ?2 AND seq = ?3)
                WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
            let by = (data.sender.as_bytes(), &data.body.sender_username);
            let values = params![partition, room, target, seq, created_at_ms, by.0, by.1];
            connection.prepare_cached(delete)?.execute(values)?;
        }
        Op::Pin | Op::Unpin => {
            let pin =
                "/* append */ UPDATE message_state SET pinned = ?4 WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
            let pinned = (change.op == Op::Pin).then_some(seq);
            connection.prepare_cached(pin)?.execute(params![partition, room, target, pinned])?;
        }
        Op::React => {}
    }
    let extend =
        "/* append */ UPDATE change_runs SET last_seq = ?3 WHERE partition = ?1 AND room_id = ?2 AND last_seq = ?3 - 1
        AND first_seq = (SELECT max(first_seq) FROM change_runs WHERE partition = ?1 AND room_id = ?2)";
    if connection.prepare_cached(extend)?.execute(params![partition, room, seq])? == 0 {
        let begin =
            "/* append */ INSERT INTO change_runs (partition, room_id, first_seq, last_seq) VALUES (?1, ?2, ?3, ?3)";
        connection.prepare_cached(begin)?.execute(params![partition, room, seq])?;
    }
    Ok(())
}

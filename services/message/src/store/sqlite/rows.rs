//! The rows of events.

use std::collections::HashSet;
use std::sync::Arc;

use confab_common::{Error, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::store::{self, Body, EVENT_OVERHEAD, Event, EventData, Kind, Limit};

/// The columns of an event, in the order that [`event`] reads.
macro_rules! columns {
    () => {
        "partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at"
    };
}

const FIND: &str = concat!(
    "/* find */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND sender_id = ?3 AND client_id = ?4"
);
pub const LIST_OLDEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq ASC LIMIT ?5"
);
pub const LIST_NEWEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5"
);
pub const READ_LOG: &str = concat!(
    "/* read_log */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND position > ?2 ORDER BY position LIMIT ?3"
);
pub const INSERT: &str =
    concat!("/* append */ INSERT INTO events (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");

/// Finds the event with the same identity.
pub fn find(connection: &Connection, data: &EventData) -> Result<Option<Event>> {
    let key = params![data.partition, data.room.as_bytes(), data.sender.as_bytes(), data.client_id];
    connection.prepare_cached(FIND)?.query_row(key, |row| Ok(event(row))).optional()?.transpose()
}

/// Marks the files of events that are deleted in this snapshot.
pub fn mark_deleted<'a>(connection: &Connection, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = store::with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let mut is_deleted = connection.prepare_cached(
        "/* mark_deleted */ SELECT 1 FROM deleted_files WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3",
    )?;
    let mut deleted = HashSet::new();
    for key in store::files_of(&events) {
        let ((partition, room), file) = key;
        if is_deleted.exists(params![partition, room.as_bytes(), file.as_bytes()])? {
            deleted.insert(key);
        }
    }
    store::mark_deleted(events, &deleted);
    Ok(())
}

pub fn epoch(connection: &Connection) -> Result<Uuid> {
    Ok(connection.prepare_cached("/* epoch */ SELECT epoch FROM log")?.query_row([], |row| uuid(row, 0))?)
}

pub fn uuid(row: &Row, column: usize) -> rusqlite::Result<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

/// Reads the event in a row of `columns!`.
fn event(row: &Row) -> Result<Event> {
    let data = EventData {
        partition: row.get(0)?,
        room: uuid(row, 2)?,
        kind: Kind::try_from(row.get::<_, i64>(4)?)?,
        id: uuid(row, 5)?,
        sender: uuid(row, 6)?,
        client_id: row.get(7)?,
        body: Body::from_text(row.get_ref(8)?.as_str().map_err(Error::internal)?)?,
        closes_room: false,
    };
    let numbers = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(3)? as u64);
    Ok(Event { data: Arc::new(data), position: numbers.0, seq: numbers.1, created_at_ms: row.get(9)? })
}

/// Reads events from a statement up to the limit in bytes, but at least one.
pub fn take(
    connection: &Connection,
    statement: &str,
    parameters: impl rusqlite::Params,
    limit: Limit,
) -> Result<Vec<Event>> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(parameters)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).map(|value| value.as_bytes().map_or(0, <[u8]>::len));
        bytes += text(7)? + text(8)? + EVENT_OVERHEAD;
        if bytes > limit.bytes as usize && !events.is_empty() {
            break;
        }
        events.push(event(row)?);
    }
    mark_deleted(connection, events.iter_mut())?;
    Ok(events)
}

//! The rows of events.

use std::collections::HashSet;
use std::sync::Arc;

use confab_common::{Error, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::store::outcome::{self, with_files};
use crate::store::{Body, Change, Event, EventData, Kind, Limit, Op, Reaction, RoomKey, State};

/// The columns of an event, in the order that [`event`] reads.
macro_rules! columns {
    () => {
        "partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at, target, op, ordinal"
    };
}

const FIND: &str = concat!(
    "/* find */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND sender_id = ?3 AND client_id = ?4"
);
pub const OLDEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq ASC LIMIT ?5"
);
pub const NEWEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5"
);
const BY_SEQ: &str =
    concat!("/* fold */ SELECT ", columns!(), " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq = ?3");
const STATE: &str =
    "/* fold */ SELECT revision, content, edited_at, deleted_by, deleted_by_name, pinned, reactions, data FROM message_state
    WHERE partition = ?1 AND room_id = ?2 AND seq = ?3";
pub const READ_LOG: &str = concat!(
    "/* read_log */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND position > ?2 ORDER BY position LIMIT ?3"
);
pub const INSERT: &str = concat!(
    "/* append */ INSERT INTO events (",
    columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
);

/// Finds the event with the same identity.
pub fn find(connection: &Connection, data: &EventData) -> Result<Option<Event>> {
    let key = params![data.partition, data.room.as_bytes(), data.sender.as_bytes(), data.client_id];
    connection.prepare_cached(FIND)?.query_row(key, |row| Ok(event(row))).optional()?.transpose()
}

/// Marks the files of events that are deleted in this snapshot.
pub fn mark_deleted<'a>(connection: &Connection, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let mut is_deleted = connection.prepare_cached(
        "/* mark_deleted */ SELECT 1 FROM deleted_files WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3",
    )?;
    let mut deleted = HashSet::new();
    for key in outcome::files_of(&events) {
        let ((partition, room), file) = key;
        if is_deleted.exists(params![partition, room.as_bytes(), file.as_bytes()])? {
            deleted.insert(key);
        }
    }
    outcome::mark_deleted(events, &deleted);
    Ok(())
}

pub fn epoch(connection: &Connection) -> Result<Uuid> {
    Ok(connection.prepare_cached("/* epoch */ SELECT epoch FROM log")?.query_row([], |row| uuid(row, 0))?)
}

pub fn uuid(row: &Row, column: usize) -> rusqlite::Result<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

/// Returns a message or another event as it was appended.
pub fn original(connection: &Connection, (partition, room): RoomKey, seq: i64) -> Result<Option<Event>> {
    let key = params![partition, room.as_bytes(), seq];
    connection.prepare_cached(BY_SEQ)?.query_row(key, |row| Ok(event(row))).optional()?.transpose()
}

/// Returns a message in its present state.
pub fn message(connection: &Connection, room: RoomKey, seq: u64) -> Result<Option<Event>> {
    let mut message = original(connection, room, seq as i64)?;
    message.iter_mut().try_for_each(|message| fold(connection, message))?;
    Ok(message)
}

/// Gives a message the state that changes have made of it.
fn fold(connection: &Connection, message: &mut Event) -> Result<()> {
    let data = &message.data;
    if matches!(data.kind, Kind::System | Kind::Change) {
        return Ok(());
    }
    let key = params![data.partition, data.room.as_bytes(), message.seq as i64];
    let state = connection.prepare_cached(STATE)?.query_row(key, |row| {
        let deleted_by = row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes);
        let state = State {
            revision: row.get::<_, i64>(0)? as u64,
            edited_at_ms: row.get(2)?,
            deleted_by: deleted_by.zip(row.get(4)?),
            pinned: row.get::<_, Option<i64>>(5)?.is_some(),
            reactions: Vec::new(),
        };
        Ok((state, (row.get(1)?, row.get(7)?), row.get::<_, Option<String>>(6)?))
    });
    if let Some((state, (text, data), reactions)) = state.optional()? {
        message.fold(State { reactions: Reaction::list(reactions.as_deref())?, ..state }, text, data);
    }
    Ok(())
}

/// Gives a message its present state, or a change its message.
pub fn complete(connection: &Connection, event: &mut Event) -> Result<()> {
    if let Some(change) = event.data.change {
        if let Some(message) = message(connection, (event.data.partition, event.data.room), change.target)? {
            event.give_message(message);
        }
        return Ok(());
    }
    fold(connection, event)
}

/// Reads the event in a row of `columns!`.
fn event(row: &Row) -> Result<Event> {
    let target = row.get::<_, Option<i64>>(10)?.zip(row.get::<_, Option<i64>>(11)?);
    let change = target.map(|(target, op)| Ok::<_, Error>(Change::new(target as u64, Op::try_from(op)?)));
    let data = EventData {
        partition: row.get(0)?,
        room: uuid(row, 2)?,
        kind: Kind::try_from(row.get::<_, i64>(4)?)?,
        id: uuid(row, 5)?,
        sender: uuid(row, 6)?,
        client_id: row.get(7)?,
        body: Body::from_text(row.get_ref(8)?.as_str().map_err(Error::internal)?)?,
        change: change.transpose()?,
        closes_room: false,
    };
    let (position, seq) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(3)? as u64);
    Ok(Event::new(Arc::new(data), position, seq, row.get(9)?).counted(row.get(12)?))
}

/// Collects events up to a limit, but at least one.
pub struct Taken {
    limit: Limit,
    bytes: usize,
    pub events: Vec<Event>,
}

impl Taken {
    pub fn up_to(limit: Limit) -> Self {
        Self { limit, bytes: 0, events: Vec::new() }
    }

    /// Adds an event; returns false if the limit does not permit it.
    pub fn add(&mut self, event: Event) -> bool {
        self.bytes += event.size();
        let fits = self.events.len() < self.limit.events as usize
            && (self.bytes <= self.limit.bytes as usize || self.events.is_empty());
        if fits {
            self.events.push(event);
        }
        fits
    }

    /// Adds the events of a statement, messages in their present state, as far as the limit permits; returns whether it
    /// permits further ones. `of_changes`: whether changes get their messages.
    pub fn take(
        &mut self,
        connection: &Connection,
        statement: &str,
        parameters: impl rusqlite::Params,
        of_changes: bool,
    ) -> Result<bool> {
        let mut statement = connection.prepare_cached(statement)?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let mut event = event(row)?;
            if of_changes {
                complete(connection, &mut event)?;
            } else {
                fold(connection, &mut event)?;
            }
            if !self.add(event) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

//! The log on SQLite.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use confab_common::sqlite::Database;
use confab_common::{Error, Result, identity};
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    AppendError, Appended, Body, EVENT_OVERHEAD, Event, EventData, Head, Heads, Kind, Limit, Outcome, Page, RoomHead,
    RoomKey, Store, Window,
};

refinery::embed_migrations!("migrations/sqlite");

pub struct Sqlite {
    database: Database,
    path: PathBuf,
}

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
const INSERT: &str =
    concat!("/* append */ INSERT INTO events (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
const LIST_OLDEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq ASC LIMIT ?5"
);
const LIST_NEWEST_FIRST: &str = concat!(
    "/* list */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND room_id = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5"
);
const READ_LOG: &str = concat!(
    "/* read_log */ SELECT ",
    columns!(),
    " FROM events WHERE partition = ?1 AND position > ?2 ORDER BY position LIMIT ?3"
);

impl Sqlite {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// When another process has locked the file, or it cannot be opened or migrated.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { database: Database::open(path, migrations::runner())?, path: path.to_owned() })
    }

    fn fingerprint(&self) -> Result<String> {
        std::fs::metadata(&self.path).map(|metadata| identity::of_file(&metadata)).map_err(Error::internal)
    }

    async fn open_or_renew(&self, wanted: Option<u32>) -> Result<Uuid> {
        let fingerprint = self.fingerprint()?;
        self.database.write(move |connection| open_or_renew(connection, &fingerprint, wanted)).await
    }
}

fn open_or_renew(connection: &Connection, fingerprint: &str, wanted: Option<u32>) -> Result<Uuid> {
    let row = connection
        .query_row("/* open_log */ SELECT epoch, fingerprint, partitions FROM log", [], |row| {
            Ok((uuid(row, 0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let Some((epoch, old_fingerprint, partitions)) = row else {
        let wanted = wanted.ok_or_else(|| Error::not_found("log"))?;
        let epoch = super::next_epoch(None);
        let create = "/* open_log */ INSERT INTO log (one, epoch, fingerprint, partitions) VALUES (1, ?1, ?2, ?3)";
        connection.execute(create, params![epoch.as_bytes(), fingerprint, wanted])?;
        for partition in 0..wanted {
            connection.execute("/* open_log */ INSERT INTO partitions VALUES (?1, 0)", [partition])?;
        }
        return Ok(epoch);
    };
    let renewed = match wanted {
        Some(wanted) => super::renewed(epoch, (&old_fingerprint, fingerprint), (partitions, wanted))?,
        None => Some(super::next_epoch(Some(epoch))),
    };
    if let Some(epoch) = renewed {
        connection.execute(
            "/* open_log */ UPDATE log SET epoch = ?1, fingerprint = ?2",
            params![epoch.as_bytes(), fingerprint],
        )?;
        tracing::warn!(%epoch, fingerprint, "renewed the log's epoch");
    }
    Ok(renewed.unwrap_or(epoch))
}

/// The heads that an append has read and updates at its end.
#[derive(Default)]
struct Moving {
    partitions: BTreeMap<u32, i64>,
    rooms: BTreeMap<RoomKey, (i64, bool)>,
}

fn append(connection: &Connection, batch: &[Arc<EventData>], created_at_ms: i64) -> Result<Appended> {
    let mut moving = Moving::default();
    let mut outcomes = batch
        .iter()
        .map(|data| append_one(connection, data, created_at_ms, &mut moving))
        .collect::<Result<Vec<_>>>()?;
    let mut update = connection.prepare_cached("/* append */ UPDATE partitions SET head = ?2 WHERE partition = ?1")?;
    for (partition, head) in moving.partitions {
        update.execute(params![partition, head])?;
    }
    let mut upsert = connection.prepare_cached(
        "/* append */ INSERT INTO room_heads (partition, room_id, seq, closed) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed",
    )?;
    for ((partition, room), (seq, closed)) in moving.rooms.into_iter().filter(|(_, (seq, _))| *seq > 0) {
        upsert.execute(params![partition, room.as_bytes(), seq, closed])?;
    }
    mark_deleted(connection, outcomes.iter_mut().filter_map(Outcome::event_mut))?;
    Ok(Appended { epoch: epoch(connection)?, outcomes })
}

fn append_one(
    connection: &Connection,
    data: &Arc<EventData>,
    created_at_ms: i64,
    moving: &mut Moving,
) -> Result<Outcome> {
    if let Some(first) = find(connection, data)? {
        return Ok(Outcome::Repeated(first));
    }
    let (seq, closed) = match moving.rooms.entry((data.partition, data.room)) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let read = "/* append */ SELECT seq, closed FROM room_heads WHERE partition = ?1 AND room_id = ?2";
            let head = connection
                .prepare_cached(read)?
                .query_row(params![data.partition, data.room.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            entry.insert(head.unwrap_or_default())
        }
    };
    if *closed {
        return Ok(Outcome::Closed);
    }
    let head = match moving.partitions.entry(data.partition) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let read = "/* append */ SELECT head FROM partitions WHERE partition = ?1";
            entry.insert(connection.prepare_cached(read)?.query_row([data.partition], |row| row.get(0))?)
        }
    };
    *head += 1;
    *seq += 1;
    *closed = data.closes_room;
    connection.prepare_cached(INSERT)?.execute(params![
        data.partition,
        *head,
        data.room.as_bytes(),
        *seq,
        data.kind as i64,
        data.id.as_bytes(),
        data.sender.as_bytes(),
        data.client_id,
        data.body.to_text()?,
        created_at_ms
    ])?;
    Ok(Outcome::Appended(Event { data: data.clone(), position: *head as u64, seq: *seq as u64, created_at_ms }))
}

/// Finds the event with the same identity.
fn find(connection: &Connection, data: &EventData) -> Result<Option<Event>> {
    let key = params![data.partition, data.room.as_bytes(), data.sender.as_bytes(), data.client_id];
    connection.prepare_cached(FIND)?.query_row(key, |row| Ok(event(row))).optional()?.transpose()
}

/// Marks the files of events that are deleted in this snapshot.
fn mark_deleted<'a>(connection: &Connection, events: impl Iterator<Item = &'a mut Event>) -> Result<()> {
    let events = super::with_files(events);
    if events.is_empty() {
        return Ok(());
    }
    let mut is_deleted = connection.prepare_cached(
        "/* mark_deleted */ SELECT 1 FROM deleted_files WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3",
    )?;
    let mut deleted = HashSet::new();
    for key in super::files_of(&events) {
        let ((partition, room), file) = key;
        if is_deleted.exists(params![partition, room.as_bytes(), file.as_bytes()])? {
            deleted.insert(key);
        }
    }
    super::mark_deleted(events, &deleted);
    Ok(())
}

fn epoch(connection: &Connection) -> Result<Uuid> {
    Ok(connection.prepare_cached("/* epoch */ SELECT epoch FROM log")?.query_row([], |row| uuid(row, 0))?)
}

fn uuid(row: &Row, column: usize) -> rusqlite::Result<Uuid> {
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
fn take(
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

impl Store for Sqlite {
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>> {
        self.open_or_renew(Some(partitions)).boxed()
    }

    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>> {
        // The directory is locked: the file cannot be replaced while this store is open.
        std::future::ready(Ok(true)).boxed()
    }

    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>> {
        self.open_or_renew(None).boxed()
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        let batch = batch.to_vec();
        async move { Ok(self.database.write(move |connection| append(connection, &batch, created_at_ms)).await?) }
            .boxed()
    }

    fn list(&self, (partition, room): RoomKey, window: Window, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        let read = move |connection: &Connection| {
            let (above, below, newest_first) = window.bounds();
            let statement = if newest_first { LIST_NEWEST_FIRST } else { LIST_OLDEST_FIRST };
            let mut events =
                take(connection, statement, params![partition, room.as_bytes(), above, below, limit.events], limit)?;
            if newest_first {
                events.reverse();
            }
            Ok(Page { epoch: epoch(connection)?, head: room_head(connection, (partition, room))?.seq, events })
        };
        self.database.read(read).boxed()
    }

    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        let read = move |connection: &Connection| {
            let events = take(connection, READ_LOG, params![partition, super::number(after), limit.events], limit)?;
            let head = "/* read_log */ SELECT head FROM partitions WHERE partition = ?1";
            let head = connection.prepare_cached(head)?.query_row([partition], |row| row.get::<_, i64>(0))?;
            Ok(Page { epoch: epoch(connection)?, head: head as u64, events })
        };
        self.database.read(read).boxed()
    }

    fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
        let data = data.clone();
        let read = move |connection: &Connection| {
            let mut event = find(connection, &data)?;
            mark_deleted(connection, event.iter_mut())?;
            Ok((epoch(connection)?, event))
        };
        self.database.read(read).boxed()
    }

    fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>> {
        let read = |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("/* heads */ SELECT partition, head FROM partitions ORDER BY partition")?;
            let heads = statement
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Heads { epoch: epoch(connection)?, heads })
        };
        self.database.read(read).boxed()
    }

    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>> {
        let read = move |connection: &Connection| {
            let heads = rooms.iter().map(|key| room_head(connection, *key)).collect::<Result<_>>()?;
            Ok(Heads { epoch: epoch(connection)?, heads })
        };
        self.database.read(read).boxed()
    }

    fn forget_files(&self, (partition, room): RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            let insert = "/* forget_files */ INSERT INTO deleted_files (partition, room_id, file_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let mut insert = connection.prepare_cached(insert)?;
            files
                .iter()
                .try_for_each(|file| insert.execute(params![partition, room.as_bytes(), file.as_bytes()]).map(drop))?;
            Ok(())
        };
        self.database.write(write).boxed()
    }
}

fn room_head(connection: &Connection, (partition, room): RoomKey) -> Result<RoomHead> {
    let read = "/* room_head */ SELECT seq, closed FROM room_heads WHERE partition = ?1 AND room_id = ?2";
    let head = connection
        .prepare_cached(read)?
        .query_row(params![partition, room.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    let (seq, closed) = head.unwrap_or_default();
    Ok(RoomHead { room, seq: seq as u64, closed })
}

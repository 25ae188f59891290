//! The log on SQLite.

mod append;
mod changes;
mod dropping;
mod judging;
mod markers;
mod moving;
mod opening;
mod reactions;
mod rooms;
mod rows;
mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use confab_common::sqlite::{self, Database};
use confab_common::{Error, Result, identity};
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{
    AppendError, Appended, DropStore, Event, EventData, Head, Heads, LastTimes, Limit, MarkStore, Member, Opened, Page,
    ReactionStore, Readers, Reopening, RoomAccess, RoomHead, RoomKey, SearchStore, Store, Window,
};
use append::append;
use rows::{READ_LOG, Taken, epoch, find, mark_deleted};

refinery::embed_migrations!("migrations/sqlite");

/// Concurrent reads of searches.
const SEARCHERS: usize = 2;

pub struct Sqlite {
    database: Database,
    /// Connections for searches, so that they do not occupy those of other reads.
    searchers: sqlite::Readers,
    path: PathBuf,
}

impl Sqlite {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// When another process has locked the file, or it cannot be opened or migrated.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::open(path, migrations::runner())?;
        let searchers = database.readers().apart(SEARCHERS);
        Ok(Self { database, searchers, path: path.to_owned() })
    }

    fn fingerprint(&self) -> Result<String> {
        std::fs::metadata(&self.path).map(|metadata| identity::of_file(&metadata)).map_err(Error::internal)
    }

    async fn open_or_renew(&self, wanted: Option<u32>) -> Result<Opened> {
        let fingerprint = self.fingerprint()?;
        self.database.write(move |connection| opening::open_or_renew(connection, &fingerprint, wanted)).await
    }
}

impl Store for Sqlite {
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Opened>> {
        self.open_or_renew(Some(partitions)).boxed()
    }

    fn format(&self) -> BoxFuture<'_, Result<u32>> {
        self.database.read(opening::format).boxed()
    }

    fn rooms_opened(&self) -> BoxFuture<'_, Result<()>> {
        let write = |connection: &Connection| {
            connection.execute("/* rooms_opened */ UPDATE log SET rooms_opened = 1 WHERE NOT rooms_opened", [])?;
            Ok(())
        };
        self.database.write(write).boxed()
    }

    fn finish_upgrade(&self) -> BoxFuture<'_, Result<()>> {
        self.database.write(opening::finish_upgrade).boxed()
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>> {
        // The directory is locked: the file cannot be replaced while this store is open.
        std::future::ready(Ok(true)).boxed()
    }

    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>> {
        async { Ok(self.open_or_renew(None).await?.epoch) }.boxed()
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

    fn list(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        self.database.read(move |connection| changes::list(connection, room, window, limit, &readers)).boxed()
    }

    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        let read = move |connection: &Connection| {
            let mut taken = Taken::up_to(limit);
            taken.take(connection, READ_LOG, params![partition, super::number(after), limit.events], true)?;
            let mut events = taken.events;
            mark_deleted(connection, events.iter_mut())?;
            let head = "/* read_log */ SELECT head FROM partitions WHERE partition = ?1";
            let head = connection.prepare_cached(head)?.query_row([partition], |row| row.get::<_, i64>(0))?;
            Ok(Page { epoch: epoch(connection)?, head: head as u64, last: head as u64, messages: 0, events })
        };
        self.database.read(read).boxed()
    }

    fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
        let data = data.clone();
        let read = move |connection: &Connection| {
            let mut event = find(connection, &data)?;
            event.iter_mut().try_for_each(|event| rows::complete(connection, event))?;
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

    fn room_heads(&self, keys: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>> {
        let read = move |connection: &Connection| {
            let head = |key: &RoomKey| {
                let rooms::Head { seq, closed, messages, .. } = rooms::head(connection, *key)?;
                Ok(RoomHead { room: key.1, seq: seq as u64, closed, messages: messages as u64 })
            };
            Ok(Heads { epoch: epoch(connection)?, heads: keys.iter().map(head).collect::<Result<_>>()? })
        };
        self.database.read(read).boxed()
    }

    fn last_times(&self, rooms: Vec<(RoomKey, u64)>, until_ms: i64) -> BoxFuture<'_, Result<Vec<LastTimes>>> {
        let read = move |connection: &Connection| {
            rooms.iter().map(|(room, seq)| rooms::last_times(connection, *room, *seq as i64, until_ms)).collect()
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

    fn drops(&self) -> &dyn DropStore {
        self
    }

    fn marks(&self) -> &dyn MarkStore {
        self
    }

    fn reacting(&self) -> &dyn ReactionStore {
        self
    }

    fn searches(&self) -> &dyn SearchStore {
        self
    }

    fn open_room(&self, room: RoomKey, private: bool, members: Vec<Member>) -> BoxFuture<'_, Result<()>> {
        self.database.write(move |connection| rooms::open(connection, room, private, &members)).boxed()
    }

    fn reopen_room(&self, room: RoomKey, again: Reopening) -> BoxFuture<'_, Result<()>> {
        self.database.write(move |connection| rooms::reopen(connection, room, &again)).boxed()
    }
}

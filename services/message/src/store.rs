//! What a log's store does, and what goes in and comes out. Every answer names the epoch, read in the same snapshot.

mod event;
pub mod postgres;
pub mod sqlite;
pub mod tables;

#[cfg(test)]
mod contract;

use std::collections::HashSet;
use std::sync::Arc;

use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

pub use event::{Body, Draft, EVENT_OVERHEAD, Event, File, Kind, client_id};

/// What became of one draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log now.
    Appended(Event),
    /// Its identity was in the log before: that event.
    Repeated(Event),
    /// Its room is closed.
    Closed,
}

impl Outcome {
    fn event_mut(&mut self) -> Option<&mut Event> {
        match self {
            Self::Appended(event) | Self::Repeated(event) => Some(event),
            Self::Closed => None,
        }
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct Appended {
    /// The log's epoch.
    pub epoch: Uuid,
    /// One for each draft, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Why nothing of a batch was appended, or, for `timeout`, perhaps nothing.
#[derive(Debug)]
pub enum AppendError {
    /// One of its partitions is locked by somebody else for too long. Nothing was done.
    Locked,
    /// Anything else: `unavailable` (nothing was done), `timeout` (unknown), `internal` (a draft that cannot be stored).
    Failed(Error),
}

impl<E: Into<Error>> From<E> for AppendError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Which events of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The newest.
    Latest,
    /// The newest below a `seq`.
    Before(u64),
    /// The oldest above a `seq`.
    After(u64),
}

impl Window {
    /// The bounds of `seq`, both exclusive, and whether the newest come first.
    fn bounds(self) -> (i64, i64, bool) {
        match self {
            Self::Latest => (0, i64::MAX, true),
            Self::Before(seq) => (0, number(seq), true),
            Self::After(seq) => (number(seq), i64::MAX, false),
        }
    }
}

/// How much of it: at most so many events and encoded bytes, but at least one event.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Events; 0 reads the head alone.
    pub events: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A page of a room or a partition, in rising number.
#[derive(Debug)]
pub struct Page {
    /// The log's epoch.
    pub epoch: Uuid,
    /// The room's newest `seq`, the partition's newest position.
    pub head: u64,
    /// The events.
    pub events: Vec<Event>,
}

/// The newest numbers of some partitions or rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads<T> {
    /// The log's epoch.
    pub epoch: Uuid,
    /// Each with its newest number.
    pub heads: Vec<T>,
}

/// A partition and its newest position.
pub type Head = (u32, u64);

/// How far a room has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHead {
    /// Which.
    pub room: Uuid,
    /// Its newest `seq`, 0 without events.
    pub seq: u64,
    /// Nothing can follow.
    pub closed: bool,
}

/// A room and its partition.
pub type RoomKey = (u32, Uuid);

/// A file and its room.
type FileKey = (RoomKey, Uuid);

/// Where a log is kept. Every event that comes out of it tells which of its files are deleted.
pub trait Store: Send + Sync + 'static {
    /// Creates the log at its first start; later renews its epoch if the database is not the one it was last opened on.
    ///
    /// # Errors
    /// `conflict` when the log has another number of partitions; when the database fails.
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>>;

    /// Whether the database is still the one that the log was last opened on: a failover may put another in its place.
    ///
    /// # Errors
    /// When the database fails.
    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>>;

    /// Renews the epoch of an existing log, because its database was restored to an older state.
    ///
    /// # Errors
    /// `not_found` when there is no log; when the database fails.
    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>>;

    /// Appends a batch in its order, all or nothing. No two of its drafts have the same identity.
    fn append<'a>(&'a self, drafts: &'a [Arc<Draft>], created_at_ms: i64) -> BoxFuture<'a, Result<Appended, AppendError>>;

    /// A page of a room's history, with the room's head.
    fn list(&self, room: RoomKey, window: Window, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// Events of a partition above a position, with the partition's head.
    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// The event in the log, if there is one, that has the identity of a draft; with the log's epoch.
    fn find<'a>(&'a self, draft: &'a Draft) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>>;

    /// The head of every partition, from the primary database.
    fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>>;

    /// The heads of rooms, in the order given.
    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>>;

    /// From now on these files of a room are deleted in all its events, also in those to come. Repeating it changes nothing.
    fn forget_files(&self, room: RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

/// The events that have files.
fn with_files<'a>(events: impl IntoIterator<Item = &'a mut Event>) -> Vec<&'a mut Event> {
    events.into_iter().filter(|event| !event.draft.body.files.is_empty()).collect()
}

/// Their files.
fn files_of(events: &[&mut Event]) -> Vec<FileKey> {
    let drafts = events.iter().map(|event| &event.draft);
    drafts.flat_map(|draft| draft.body.files.iter().map(|file| ((draft.partition, draft.room), file.id))).collect()
}

/// Marks those that are deleted.
fn mark_deleted(events: Vec<&mut Event>, deleted: &HashSet<FileKey>) {
    for event in events {
        let room = (event.draft.partition, event.draft.room);
        if event.draft.body.files.iter().any(|file| deleted.contains(&(room, file.id))) {
            let files = &mut Arc::make_mut(&mut event.draft).body.files;
            files.iter_mut().for_each(|file| file.deleted = deleted.contains(&(room, file.id)));
        }
    }
}

/// The epoch after `old`. Epochs only grow, also when this machine's clock is behind the one that made the last.
fn next_epoch(old: Option<Uuid>) -> Uuid {
    let next = Uuid::now_v7();
    match old {
        // One millisecond later: the time is in the upper 48 bits.
        Some(old) if next <= old => Uuid::from_u128(old.as_u128() + (1 << 80)),
        _ => next,
    }
}

/// What to do about a log whose row was found like this; `None` is nothing.
fn renewed(epoch: Uuid, fingerprint: (&str, &str), partitions: (i64, u32)) -> Result<Option<Uuid>> {
    if partitions.0 != i64::from(partitions.1) {
        let (has, wanted) = partitions;
        let detail = format!("the log has {has} partitions and CONFAB_PARTITIONS says {wanted}; the number is fixed when a log is created");
        return Err(Error::new(Code::Conflict, detail));
    }
    Ok((fingerprint.0 != fingerprint.1).then(|| next_epoch(Some(epoch))))
}

/// A number as the database has it.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow() {
        let ahead = Uuid::from_u128(Uuid::now_v7().as_u128() + (1 << 100));
        let next = next_epoch(Some(ahead));
        assert!(next > ahead && next.get_version_num() == 7);
        assert!(next_epoch(None) < next);
    }
}

//! The interface of a log's store. Every answer names the epoch, read in the same snapshot.

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

/// The outcome of one draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The draft is in the log now.
    Appended(Event),
    /// The log already had this event with the draft's identity.
    Repeated(Event),
    /// The draft's room is closed.
    Closed,
}

impl Outcome {
    /// Its event, if it has one.
    pub fn event_mut(&mut self) -> Option<&mut Event> {
        match self {
            Self::Appended(event) | Self::Repeated(event) => Some(event),
            Self::Closed => None,
        }
    }
}

/// The outcome of a batch.
#[derive(Debug)]
pub struct Appended {
    /// The log's epoch.
    pub epoch: Uuid,
    /// One for each draft, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Why nothing of a batch was appended; after `timeout`, it may have been.
#[derive(Debug)]
pub enum AppendError {
    /// Another transaction has locked one of its partitions for too long. Nothing was appended.
    Locked,
    /// Any other error: `unavailable` (nothing was appended), `timeout` (unknown), `internal` (a draft that cannot be
    /// stored).
    Failed(Error),
}

impl<E: Into<Error>> From<E> for AppendError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A part of a room's history.
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

/// The size of a page: at most this many events and encoded bytes, but at least one event.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Events; 0 reads the head alone.
    pub events: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A page of a room or a partition, by rising number.
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

/// The head of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHead {
    /// Which.
    pub room: Uuid,
    /// Its newest `seq`, 0 without events.
    pub seq: u64,
    /// Whether the room is closed: no event can follow.
    pub closed: bool,
}

/// A room and its partition.
pub type RoomKey = (u32, Uuid);

/// A file and its room.
type FileKey = (RoomKey, Uuid);

/// A store of a log. Every event that it returns says which of its files are deleted.
pub trait Store: Send + Sync + 'static {
    /// Creates the log at its first start; later renews its epoch if the database is not the one that it was last
    /// opened on.
    ///
    /// # Errors
    /// `conflict` when the log has a different number of partitions; when the database fails.
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>>;

    /// Whether the database is still the one that the log was last opened on: a failover may have replaced it.
    ///
    /// # Errors
    /// When the database fails.
    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>>;

    /// Renews the epoch of an existing log, because its database was restored to an older state.
    ///
    /// # Errors
    /// `not_found` when there is no log; when the database fails.
    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>>;

    /// Appends a batch in its order, all or nothing. No two of its drafts may have the same identity.
    fn append<'a>(&'a self, drafts: &'a [Arc<Draft>], created_at_ms: i64) -> BoxFuture<'a, Result<Appended, AppendError>>;

    /// A page of a room's history, with the room's head.
    fn list(&self, room: RoomKey, window: Window, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// Events of a partition above a position, with the partition's head.
    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// The event in the log with the identity of a draft, if there is one; with the log's epoch.
    fn find<'a>(&'a self, draft: &'a Draft) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>>;

    /// The head of every partition, from the primary database.
    fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>>;

    /// The heads of rooms, in the order given.
    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>>;

    /// Marks these files of a room as deleted in all its events, including later ones. Idempotent.
    fn forget_files(&self, room: RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

/// The methods that a store around `self.store` passes on as they are, in builds that have one.
#[cfg(any(test, feature = "failpoints"))]
macro_rules! passed_on {
    () => {
        fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Uuid>> {
            self.store.open_log(partitions)
        }

        fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>> {
            self.store.is_as_opened()
        }

        fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>> {
            self.store.renew_epoch()
        }

        fn find<'a>(&'a self, draft: &'a Draft) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
            self.store.find(draft)
        }

        fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>> {
            self.store.heads()
        }

        fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>> {
            self.store.room_heads(rooms)
        }

        fn forget_files(&self, room: RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
            self.store.forget_files(room, files)
        }
    };
}
#[cfg(any(test, feature = "failpoints"))]
pub(crate) use passed_on;

/// The events with files.
fn with_files<'a>(events: impl IntoIterator<Item = &'a mut Event>) -> Vec<&'a mut Event> {
    events.into_iter().filter(|event| !event.draft.body.files.is_empty()).collect()
}

/// The keys of the events' files.
fn files_of(events: &[&mut Event]) -> Vec<FileKey> {
    let drafts = events.iter().map(|event| &event.draft);
    drafts.flat_map(|draft| draft.body.files.iter().map(|file| ((draft.partition, draft.room), file.id))).collect()
}

/// Marks the files that are deleted.
fn mark_deleted(events: Vec<&mut Event>, deleted: &HashSet<FileKey>) {
    for event in events {
        let room = (event.draft.partition, event.draft.room);
        if event.draft.body.files.iter().any(|file| deleted.contains(&(room, file.id))) {
            let files = &mut Arc::make_mut(&mut event.draft).body.files;
            files.iter_mut().for_each(|file| file.deleted = deleted.contains(&(room, file.id)));
        }
    }
}

/// The epoch after `old`. Epochs only grow, even when this machine's clock is behind the one that made the last epoch.
fn next_epoch(old: Option<Uuid>) -> Uuid {
    let next = Uuid::now_v7();
    match old {
        // One millisecond later: the time is in the upper 48 bits.
        Some(old) if next <= old => Uuid::from_u128(old.as_u128() + (1 << 80)),
        _ => next,
    }
}

/// What to do with a log whose row was found like this: `Some` is its new epoch, `None` means nothing.
fn renewed(epoch: Uuid, fingerprint: (&str, &str), partitions: (i64, u32)) -> Result<Option<Uuid>> {
    if partitions.0 != i64::from(partitions.1) {
        let (has, wanted) = partitions;
        let detail = format!("the log has {has} partitions and CONFAB_PARTITIONS says {wanted}; the number is fixed when a log is created");
        return Err(Error::new(Code::Conflict, detail));
    }
    Ok((fingerprint.0 != fingerprint.1).then(|| next_epoch(Some(epoch))))
}

/// A number in the database's type.
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

//! The interface of a log's store. Every answer contains the epoch, read in the same snapshot.

mod access;
mod change;
mod changes;
mod dropping;
mod event;
mod markers;
mod outcome;
pub mod postgres;
mod reactions;
pub mod search;
pub mod sqlite;
pub mod tables;

#[cfg(test)]
mod contract;

use std::sync::Arc;

use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

pub use access::{AccessChange, Member, Readers, Role, RoomAccess};
pub use change::{Change, MAX_PINS, Op, Refusal, STATE_OVERHEAD, State};
#[cfg(test)]
pub(crate) use changes::delegated_changes;
pub use changes::{ChangeStore, Changed, ChangedBetween, Erased, MAX_CAUGHT_UP, MAX_VERSIONS, Version, Versions};
pub use dropping::{DropStore, Judged, RoomFile};
pub use event::{Body, EVENT_OVERHEAD, Event, EventData, File, Kind, client_id};
pub use markers::{Level, MAX_MARKERS, Mark, MarkStore, Marked, Marker, Notify, Receipt};
pub use outcome::{Outcome, of_earlier};
pub use reactions::{
    MAX_NAMES, MAX_REACTED, OwnReactions, Reacted, Reaction, ReactionEntry, ReactionList, ReactionPlace, ReactionStore,
};
pub use search::SearchStore;

/// The outcome of a batch.
#[derive(Debug)]
pub struct Appended {
    pub epoch: Uuid,
    /// One outcome per event, in the order of the batch.
    pub outcomes: Vec<Outcome>,
}

/// Why no event of a batch was appended; after `timeout`, the batch may have been appended.
#[derive(Debug)]
pub enum AppendError {
    /// Another transaction has locked a partition of the batch for too long. Nothing was appended.
    Locked,
    /// Any other error: `unavailable` (nothing was appended), `timeout` (unknown), `internal` (an event that cannot be
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
    /// The newest events.
    Latest,
    /// The newest events below a `seq`.
    Before(u64),
    /// The oldest events above a `seq`.
    After(u64),
}

impl Window {
    /// Returns the bounds of `seq`, both exclusive, and whether the newest events come first.
    fn bounds(self) -> (i64, i64, bool) {
        match self {
            Self::Latest => (0, i64::MAX, true),
            Self::Before(seq) => (0, number(seq), true),
            Self::After(seq) => (number(seq), i64::MAX, false),
        }
    }
}

/// The size of a page: maximum events and encoded bytes; at least one event is returned.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Events; 0 reads only the head.
    pub events: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A page of a room or a partition, in ascending order.
#[derive(Debug)]
pub struct Page {
    pub epoch: Uuid,
    /// The room's newest `seq`, or the partition's newest position.
    pub head: u64,
    /// Of a room: the `seq` of the newest event that such a page can have.
    pub last: u64,
    /// Of a room: the newest ordinal; 0 without one.
    pub messages: u64,
    pub events: Vec<Event>,
}

/// The state of an open log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub epoch: Uuid,
    pub format: u32,
}

/// The format of a new log, and the first one with data of messages.
pub const FORMAT: u32 = 5;
/// The first format with reactions.
pub const FORMAT_WITH_REACTIONS: u32 = 4;
/// The first format with changes of messages.
pub const FORMAT_WITH_CHANGES: u32 = 3;
/// The first format with private rooms and members. In format 1, every room is public and needs no opening.
pub const FORMAT_WITH_MEMBERS: u32 = 2;
/// The error of an upgrade that is finished too early.
const ROOMS_NOT_OPENED: &str =
    "the room service has not opened all rooms in the log yet; start its new version, wait a minute and try again";

/// The newest numbers of partitions or rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads<T> {
    pub epoch: Uuid,
    pub heads: Vec<T>,
}

/// A partition and its newest position.
pub type Head = (u32, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHead {
    pub room: Uuid,
    /// The newest `seq`; 0 without events.
    pub seq: u64,
    /// Whether the room is closed: no event can follow.
    pub closed: bool,
    /// The newest ordinal; 0 without one.
    pub messages: u64,
}

/// When the newest events of a room were appended, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastTimes {
    /// The newest event; `None` without events.
    pub newest: Option<i64>,
    /// The newest event up to the requested time; `None` without such an event.
    pub until: Option<i64>,
}

/// A partition and a room in it.
pub type RoomKey = (u32, Uuid);

/// A store of a log. In every event that it returns, messages are in a state at or after the event, and deleted files
/// are marked.
pub trait Store: ChangeStore {
    /// Creates the log at its first start. Later it renews the epoch if the database is not the one that the log was
    /// last opened on.
    ///
    /// # Errors
    /// `conflict` when the log has a different number of partitions; when the database fails.
    fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Opened>>;

    /// Returns the log's format.
    ///
    /// # Errors
    /// When the database fails.
    fn format(&self) -> BoxFuture<'_, Result<u32>>;

    /// Records that the room service has opened all rooms.
    ///
    /// # Errors
    /// When the database fails.
    fn rooms_opened(&self) -> BoxFuture<'_, Result<()>>;

    /// Raises the log to [`FORMAT`]. From then on, replicas of the release before do not use it. Idempotent.
    ///
    /// # Errors
    /// `conflict` when the room service has not opened all rooms yet; `not_found` when there is no log; when the
    /// database fails.
    fn finish_upgrade(&self) -> BoxFuture<'_, Result<()>>;

    /// Whether this process is the only one on its database, so that no replica of an earlier release can be.
    fn is_exclusive(&self) -> bool;

    /// Returns whether the database is still the one that the log was last opened on; a failover may have replaced it.
    ///
    /// # Errors
    /// When the database fails.
    fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>>;

    /// Renews the epoch of an existing log, because its database was restored to an older state.
    ///
    /// # Errors
    /// `not_found` when there is no log; when the database fails.
    fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>>;

    /// Appends a batch in its order, all events or none. No two events of the batch may have the same identity, and an
    /// access event must be the last event of its room in the batch. A batch has changes of messages or other events,
    /// never both; reactions are a batch of their own, and those to one message become one event, or several of at most
    /// [`MAX_REACTED`].
    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>>;

    /// Returns a page of a room's history without changes, with the room's head and the right of these readers in the
    /// same snapshot. The page is empty if none of them may read the room.
    fn list(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>>;

    /// Returns the events of a partition above a position, with the partition's head. Changes have their messages.
    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>>;

    /// Returns the log's epoch, and the event in the log with the same identity, if any.
    fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>>;

    /// Returns the head of every partition, from the primary database.
    fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>>;

    /// Returns the heads of rooms, in the given order.
    fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>>;

    /// Returns when events of rooms with these newest `seq`s were appended, in the given order.
    fn last_times(&self, rooms: Vec<(RoomKey, u64)>, until_ms: i64) -> BoxFuture<'_, Result<Vec<LastTimes>>>;

    /// Marks these files of a room as deleted in all its events, including later ones. Idempotent.
    fn forget_files(&self, room: RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Returns the files of deleted messages.
    fn drops(&self) -> &dyn DropStore;

    /// Returns the read markers.
    fn marks(&self) -> &dyn MarkStore;

    /// Returns the reactions.
    fn reacting(&self) -> &dyn ReactionStore;

    /// Returns the index of messages.
    fn searches(&self) -> &dyn SearchStore;

    /// Opens a room with its members, unless it was opened before. Idempotent.
    fn open_room(&self, room: RoomKey, private: bool, members: Vec<Member>) -> BoxFuture<'_, Result<()>>;

    /// Gives a room its visibility and members again, once in this epoch of the log, which must be the present one; in
    /// one call or several. Idempotent.
    fn reopen_room(&self, room: RoomKey, again: Reopening) -> BoxFuture<'_, Result<()>>;
}

/// A room as the room service has it, after the log's database was restored to an older state.
#[derive(Debug, Clone)]
pub struct Reopening {
    pub epoch: Uuid,
    pub private: bool,
    pub members: Vec<Member>,
    /// Whether further calls of this epoch follow.
    pub partial: bool,
}

/// Implements the methods that a wrapper delegates to `self.store` unchanged, in builds that contain a wrapper.
#[cfg(any(test, feature = "failpoints"))]
macro_rules! delegated {
    () => {
        fn open_log(&self, partitions: u32) -> BoxFuture<'_, Result<Opened>> {
            self.store.open_log(partitions)
        }

        fn format(&self) -> BoxFuture<'_, Result<u32>> {
            self.store.format()
        }

        fn rooms_opened(&self) -> BoxFuture<'_, Result<()>> {
            self.store.rooms_opened()
        }

        fn finish_upgrade(&self) -> BoxFuture<'_, Result<()>> {
            self.store.finish_upgrade()
        }

        fn is_exclusive(&self) -> bool {
            self.store.is_exclusive()
        }

        fn open_room(&self, room: RoomKey, private: bool, members: Vec<Member>) -> BoxFuture<'_, Result<()>> {
            self.store.open_room(room, private, members)
        }

        fn reopen_room(&self, room: RoomKey, again: Reopening) -> BoxFuture<'_, Result<()>> {
            self.store.reopen_room(room, again)
        }

        fn is_as_opened(&self) -> BoxFuture<'_, Result<bool>> {
            self.store.is_as_opened()
        }

        fn renew_epoch(&self) -> BoxFuture<'_, Result<Uuid>> {
            self.store.renew_epoch()
        }

        fn find<'a>(&'a self, data: &'a EventData) -> BoxFuture<'a, Result<(Uuid, Option<Event>)>> {
            self.store.find(data)
        }

        fn heads(&self) -> BoxFuture<'_, Result<Heads<Head>>> {
            self.store.heads()
        }

        fn room_heads(&self, rooms: Vec<RoomKey>) -> BoxFuture<'_, Result<Heads<RoomHead>>> {
            self.store.room_heads(rooms)
        }

        fn last_times(&self, rooms: Vec<(RoomKey, u64)>, until_ms: i64) -> BoxFuture<'_, Result<Vec<LastTimes>>> {
            self.store.last_times(rooms, until_ms)
        }

        fn forget_files(&self, room: RoomKey, files: Vec<Uuid>) -> BoxFuture<'_, Result<()>> {
            self.store.forget_files(room, files)
        }

        fn drops(&self) -> &dyn crate::store::DropStore {
            self.store.drops()
        }

        fn reacting(&self) -> &dyn crate::store::ReactionStore {
            self.store.reacting()
        }

        fn searches(&self) -> &dyn crate::store::SearchStore {
            self.store.searches()
        }
    };
}
#[cfg(any(test, feature = "failpoints"))]
pub(crate) use delegated;

/// Returns the epoch after `old`. Epochs only grow, even when this machine's clock is behind the clock that produced
/// the last epoch.
fn next_epoch(old: Option<Uuid>) -> Uuid {
    let next = Uuid::now_v7();
    match old {
        // One millisecond later: the time is in the upper 48 bits.
        Some(old) if next <= old => Uuid::from_u128(old.as_u128() + (1 << 80)),
        _ => next,
    }
}

/// Decides about a log with this row: `Some` is its new epoch, `None` keeps the epoch.
fn renewed(epoch: Uuid, fingerprint: (&str, &str), partitions: (i64, u32)) -> Result<Option<Uuid>> {
    if partitions.0 != i64::from(partitions.1) {
        let (has, wanted) = partitions;
        let detail = format!(
            "the log has {has} partitions, but CONFAB_PARTITIONS is {wanted}; the number is fixed when the log is created"
        );
        return Err(Error::new(Code::Conflict, detail));
    }
    Ok((fingerprint.0 != fingerprint.1).then(|| next_epoch(Some(epoch))))
}

/// Converts a number to the database's type.
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

//! The interface of a log's store for the search of messages: an index of their terms, which follows the log.

use confab_common::Result;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Event, Readers, RoomKey};
use crate::words::Needed;

/// Maximum rooms in one look-up by terms.
pub const ROOMS_AT_ONCE: usize = 64;
/// How many of the newest messages are looked at before the look-up by terms: in a common search, these are enough.
pub const NEWEST: u32 = 1000;

/// A place in the order of searches. What the numbers below the time mean is the store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When the message was appended, in milliseconds since the Unix epoch.
    at_ms: i64,
    room: Uuid,
    number: i64,
}

impl Place {
    /// The latest time of a place: the year 2248, because SQLite keeps a place in one number.
    const MAX_MS: i64 = (1 << 43) - 1;

    pub fn new(at_ms: i64, room: Uuid, number: i64) -> Self {
        Self { at_ms, room, number }
    }

    /// The place above all messages.
    pub fn above_all() -> Self {
        Self::before(Self::MAX_MS)
    }

    /// The place above all messages from before a time.
    pub fn before(at_ms: i64) -> Self {
        Self { at_ms, room: Uuid::nil(), number: 0 }.bounded()
    }

    /// A place that a client may have forged, within the numbers of the stores.
    pub fn bounded(self) -> Self {
        Self { at_ms: self.at_ms.clamp(0, Self::MAX_MS), number: self.number.max(0), ..self }
    }

    pub fn parts(self) -> (i64, Uuid, i64) {
        (self.at_ms, self.room, self.number)
    }
}

/// Which messages to find.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The messages have all of these terms.
    pub terms: Vec<Needed>,
    /// The messages are in one of these rooms.
    pub rooms: Vec<Uuid>,
    pub sender: Option<Uuid>,
    pub below: Place,
    pub limit: u32,
}

/// A message that may be wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub place: Place,
    pub room: RoomKey,
    pub seq: u64,
}

/// Messages and their readers.
#[derive(Debug, Clone)]
pub struct ReadMessages {
    pub messages: Vec<(RoomKey, u64)>,
    pub readers: Readers,
    /// Whether the readers must be members, also of public rooms.
    pub members_only: bool,
}

/// What a part of the log means for the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IndexPage {
    pub partition: u32,
    /// The events above this position are in the page …
    pub after: u64,
    /// … up to this one.
    pub up_to: u64,
    /// Each message once.
    pub messages: Vec<Indexed>,
    /// Rooms that were deleted.
    pub closed: Vec<Uuid>,
}

/// A message in the index.
#[derive(Debug, PartialEq, Eq)]
pub struct Indexed {
    pub room: Uuid,
    pub seq: u64,
    pub sender: Uuid,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// The terms, separated by spaces; empty: the message is not in the index.
    pub terms: String,
}

/// The index of messages.
pub trait SearchStore: Send + Sync {
    /// Returns partitions with events that are not in the index, at most `most`, with the positions up to which they
    /// are. For 2 s, no other holder gets them.
    fn claim_unindexed(&self, holder: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<(u32, u64)>>>;

    /// Brings a page of the log into the index. Returns `false`, and changes nothing, if the index is not at the start of
    /// the page. A page that is interrupted can be indexed again.
    fn index(&self, page: IndexPage) -> BoxFuture<'_, Result<bool>>;

    /// Removes at most `most` messages of deleted rooms from the index. Returns whether there was such a room.
    fn forget_closed(&self, most: u32) -> BoxFuture<'_, Result<bool>>;

    /// Returns when the oldest event that is not in the index was appended; `None` if all are.
    fn unindexed_since(&self) -> BoxFuture<'_, Result<Option<i64>>>;

    /// Sets the index back to the start of the log, so that every message is indexed again. Meanwhile searches find what
    /// they found before.
    fn reindex(&self) -> BoxFuture<'_, Result<()>>;

    /// Returns the rooms of a user, at most `most`.
    fn rooms_of(&self, user: Uuid, most: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Returns messages from the index, the newest first. Fewer than the limit: there are no others.
    fn find_messages(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Candidate>>>;

    /// Returns those of the messages that one of the readers may read, in their present state and in the given order,
    /// with the epoch. Deleted messages and messages of deleted rooms are left out.
    fn read_messages(&self, read: ReadMessages) -> BoxFuture<'_, Result<(Uuid, Vec<Event>)>>;
}

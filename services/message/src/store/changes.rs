//! The interface of a log's store for changed messages.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{Event, Limit, Page, Readers, Role, RoomAccess, RoomKey, Window};

/// Maximum versions of a message in one answer.
pub const MAX_VERSIONS: usize = 200;
/// Maximum items and changed messages in one answer.
pub const MAX_CAUGHT_UP: u32 = 200;

/// Changed messages in their present state, in ascending revision.
#[derive(Debug, Default)]
pub struct Changed {
    pub messages: Vec<Event>,
    /// Whether further messages were changed.
    pub more: bool,
}

/// Which changed messages to read.
#[derive(Debug, Clone, Copy)]
pub struct ChangedBetween {
    /// Messages with a revision above this `seq`.
    pub after: u64,
    /// The lowest `seq` of the messages.
    pub from: u64,
    /// The highest `seq` of the messages.
    pub up_to: u64,
}

/// The texts of a message, and what decides who may read them.
#[derive(Debug)]
pub struct Versions {
    /// `None` if there is no such message.
    pub author: Option<Uuid>,
    /// The role of the reader in the room.
    pub role: Option<Role>,
    /// In ascending revision; none of a deleted message.
    pub versions: Vec<Version>,
}

/// A text of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// The `seq` of the message or of the edit.
    pub revision: u64,
    pub content: String,
    /// When the text was written, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The id and the name of the author.
    pub by: (Uuid, String),
}

/// What one step of erasing has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// The events whose text was erased.
    pub events: u64,
    /// Whether deleted messages with texts remain.
    pub more: bool,
}

/// The reads of changes, and the erasure of deleted messages. Like [`Store::list`](super::Store::list), a read of a
/// room returns the right of these readers in the same snapshot, and nothing else if none of them may read the room.
pub trait ChangeStore: Send + Sync + 'static {
    /// Returns a page of the events of a room, changes included.
    fn read_events(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>>;

    /// Returns the page of [`Store::list`](super::Store::list) above a `seq`, and in the same snapshot the messages
    /// from `from` to that `seq` that were changed above it. Both together are within the limit in bytes and at most
    /// [`MAX_CAUGHT_UP`]; the page comes first.
    fn catch_up(
        &self,
        room: RoomKey,
        after: u64,
        from: u64,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>>;

    /// Returns changed messages. The page has only the head.
    fn changes(
        &self,
        room: RoomKey,
        between: ChangedBetween,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>>;

    /// Returns the newest [`MAX_VERSIONS`] texts of a message.
    fn versions(&self, room: RoomKey, seq: u64, readers: Readers) -> BoxFuture<'_, Result<(Versions, RoomAccess)>>;

    /// Returns the pinned messages, the last pinned one first.
    fn pins(&self, room: RoomKey, readers: Readers) -> BoxFuture<'_, Result<(Page, RoomAccess)>>;

    /// Erases texts of deleted messages: of at most `messages` messages, and of each at most `edits` edits. Safe to
    /// repeat.
    fn erase_deleted(&self, messages: u32, edits: u32) -> BoxFuture<'_, Result<Erased>>;
}

/// Implements [`ChangeStore`] for a wrapper that delegates to `self.store`, in tests.
#[cfg(test)]
macro_rules! delegated_changes {
    ($store:ty) => {
        impl ChangeStore for $store {
            fn read_events(
                &self,
                room: RoomKey,
                window: Window,
                limit: Limit,
                readers: Readers,
            ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
                self.store.read_events(room, window, limit, readers)
            }

            fn catch_up(
                &self,
                room: RoomKey,
                after: u64,
                from: u64,
                limit: Limit,
                readers: Readers,
            ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
                self.store.catch_up(room, after, from, limit, readers)
            }

            fn changes(
                &self,
                room: RoomKey,
                between: ChangedBetween,
                limit: Limit,
                readers: Readers,
            ) -> BoxFuture<'_, Result<(Page, Changed, RoomAccess)>> {
                self.store.changes(room, between, limit, readers)
            }

            fn versions(
                &self,
                room: RoomKey,
                seq: u64,
                readers: Readers,
            ) -> BoxFuture<'_, Result<(Versions, RoomAccess)>> {
                self.store.versions(room, seq, readers)
            }

            fn pins(&self, room: RoomKey, readers: Readers) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
                self.store.pins(room, readers)
            }

            fn erase_deleted(&self, messages: u32, edits: u32) -> BoxFuture<'_, Result<Erased>> {
                self.store.erase_deleted(messages, edits)
            }
        }
    };
}
#[cfg(test)]
pub(crate) use delegated_changes;

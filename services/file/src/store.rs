//! The store of the files' metadata, and its rows.

#[cfg(test)]
mod contract;
pub mod postgres;
pub mod sqlite;
pub mod tables;

use confab_common::Result;
use confab_common::operations::Operations;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::link::LinkKey;
use crate::quota::Usage;

/// A user who performs an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub username: String,
}

/// A file. Its content is the object with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub id: Uuid,
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub content_type: String,
    /// The SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
    /// Whether a browser may show the file inline.
    pub safe_inline: bool,
    pub uploader: User,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    pub link_key: LinkKey,
    /// The one room that the file belongs to. Without a room, only the uploader may read the file.
    pub room: Option<Uuid>,
    /// The upload's `clientMessageId`.
    pub client_message_id: Option<String>,
    /// The id of the event that announces the file, if it was uploaded to a room.
    pub event: Option<Uuid>,
    /// Whether that event is in the log, or there is none. Until then the file must stay hidden.
    pub ready: bool,
}

impl File {
    /// Returns the file's position in lists.
    pub fn position(&self) -> Position {
        Position { created_at_ms: self.created_at_ms, id: self.id }
    }

    /// Returns the room in the identity of the upload: all zeros without a room.
    fn upload_room(&self) -> Uuid {
        self.room.filter(|_| self.event.is_some()).unwrap_or_default()
    }
}

/// The identity of an upload with a `clientMessageId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub uploader: Uuid,
    /// The room that the upload names.
    pub room: Option<Uuid>,
    pub client_message_id: String,
}

/// A position in a list of files, which is ordered by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub created_at_ms: i64,
    pub id: Uuid,
}

impl Position {
    /// Above every file.
    pub const TOP: Self = Self { created_at_ms: i64::MAX, id: Uuid::max() };
}

/// Which files to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Uploader(Uuid),
    Room(Uuid),
}

/// A deleted file whose deletion the log has not recorded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget {
    pub file: Uuid,
    pub room: Uuid,
}

/// This installation according to its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub id: Uuid,
    /// Identifies the database. A copy that is restored elsewhere has the same `id` and another `database`.
    pub database: String,
    /// The turn in the owner object when it was last read.
    pub turn: Uuid,
    /// The next turn for the owner object. It is stored in the database well before it is written to the owner object.
    pub next: Uuid,
}

/// The installation's row in a database.
pub trait Identity: Send + Sync + 'static {
    /// Returns the installation; created at the first call.
    fn installation(&self) -> BoxFuture<'_, Result<Installation>>;

    /// If `next` is still the next turn, makes it the current turn and creates a new next turn.
    fn turn(&self, next: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Replaces both turns.
    fn renew_turns(&self) -> BoxFuture<'_, Result<()>>;
}

/// The store of the files' metadata, and of two queues for deleted files: objects to remove from the object store, and
/// deletions to report to the log. A change and its entries in the queues are written in one transaction.
pub trait Store: Identity {
    /// Adds a file, unless its uploader already made an upload with that `clientMessageId` to that room. Returns the
    /// file in the store. `too_large` when a new file exceeds the quota of its uploader.
    fn add(&self, file: File) -> BoxFuture<'_, Result<File>>;

    /// Returns what a user stores.
    fn usage(&self, uploader: Uuid) -> BoxFuture<'_, Result<Usage>>;

    /// Returns the file of an earlier upload, if it still exists.
    fn first(&self, upload: Upload) -> BoxFuture<'_, Result<Option<File>>>;

    /// Returns the file with this id, ready or not.
    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<File>>>;

    /// Returns up to `limit` ready files below a position, newest first.
    fn list(&self, of: Of, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<File>>>;

    /// Attaches files to a room: all or none. Returns `false` when a file is neither in the room nor a file of that
    /// uploader without a room. No id may occur twice.
    fn attach(&self, ids: Vec<Uuid>, room: Uuid, uploader: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Returns up to `limit` files that are not ready, with ids above `after` in ascending order.
    fn pending(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<File>>>;

    /// Records that these files' events are in the log.
    fn mark_ready(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Deletes those of these files that are not ready. They are also queued for the log, which may contain the event
    /// despite its rejection.
    fn abandon(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Deletes a file. Returns `false` when it does not exist.
    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Deletes those of these files that belong to the room.
    fn drop_of_room(&self, ids: Vec<Uuid>, room: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Returns the recent operations that succeed only once.
    fn operations(&self) -> &dyn Operations;

    /// Returns up to `limit` rooms that have files, with ids above `after` in ascending order.
    fn rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Deletes up to `limit` files of a room whose log is closed, without reporting them to the log. Returns their
    /// number.
    fn empty(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Returns up to `limit` ids of files and of unwanted objects, above `after` in ascending order.
    fn known(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Returns up to `limit` objects to remove, with ids above `after` in ascending order.
    fn unwanted(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Records that these objects are removed.
    fn removed(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Returns up to `limit` deletions to report to the log, with ids above `after` in ascending order.
    fn forgets(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Forget>>>;

    /// Records that the log has these deletions.
    fn forgotten(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

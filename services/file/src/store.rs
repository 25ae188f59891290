//! What a store of files' facts does, and its rows.

#[cfg(test)]
mod contract;
pub mod postgres;
pub mod sqlite;
pub mod tables;

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::link::LinkKey;

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub username: String,
}

/// A file. Its bytes are the object of the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub id: Uuid,
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub content_type: String,
    /// Of the bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// A browser may show it in place.
    pub safe_inline: bool,
    pub uploader: User,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    pub link_key: LinkKey,
    /// The one room it belongs to; without one its uploader alone may read it.
    pub room: Option<Uuid>,
    /// What the client called its upload.
    pub client_message_id: Option<String>,
    /// The event that tells the room of it, if it was uploaded to one.
    pub event: Option<Uuid>,
    /// That event is in the log, or there is none. Until then nobody is to know of the file.
    pub ready: bool,
}

impl File {
    /// Where it stands in lists.
    pub fn position(&self) -> Position {
        Position { created_at_ms: self.created_at_ms, id: self.id }
    }

    /// The room it was uploaded to, as the identity of the upload has it: all zeros for none.
    fn upload_room(&self) -> Uuid {
        self.room.filter(|_| self.event.is_some()).unwrap_or_default()
    }
}

/// A place in a list of files, which goes by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub created_at_ms: i64,
    pub id: Uuid,
}

impl Position {
    /// Above every file.
    pub const TOP: Self = Self { created_at_ms: i64::MAX, id: Uuid::max() };
}

/// Whose files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Uploader(Uuid),
    Room(Uuid),
}

/// A file that the log is still to show as deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget {
    pub file: Uuid,
    pub room: Uuid,
}

/// This installation, as its database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub id: Uuid,
    /// Which database this is. A copy of it, restored elsewhere, has the same `id` and is another database.
    pub database: String,
    /// What the owner object said when it was last read.
    pub turn: Uuid,
    /// What it may say next. It was made here well before it was written there.
    pub next: Uuid,
}

/// What a database knows of its installation.
pub trait Identity: Send + Sync + 'static {
    /// Which installation this is; decided at the first call.
    fn installation(&self) -> BoxFuture<'_, Result<Installation>>;

    /// Makes the next turn the present one, and a new next one, if this still is the next.
    fn turn(&self, next: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Makes both turns anew.
    fn renew_turns(&self) -> BoxFuture<'_, Result<()>>;
}

/// A store of files' facts, and of what is owed for those that are gone: to the object store the removal of their bytes, to
/// the log word of it. What is owed is written with the change that owes it.
pub trait Store: Identity {
    /// Adds a file, unless its uploader has made an upload of that name to that room before. Returns the one that stands.
    fn add(&self, file: File) -> BoxFuture<'_, Result<File>>;

    /// The file of that id, ready or not.
    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Option<File>>>;

    /// Up to `limit` files that are ready, below a position, newest first.
    fn list(&self, of: Of, below: Position, limit: u32) -> BoxFuture<'_, Result<Vec<File>>>;

    /// Gives files to a room: all of them, or, with `false`, none, because one is neither its already nor a roomless one of
    /// that uploader. No id is given twice.
    fn attach(&self, ids: Vec<Uuid>, room: Uuid, uploader: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Up to `limit` files that are not ready, by rising id above `after`.
    fn pending(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<File>>>;

    /// These files' events are in the log.
    fn settle(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Deletes those of these files that are not ready. The log is told too: it may hold an event in spite of its refusal.
    fn give_up(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Deletes a file; `false` when there is none.
    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Up to `limit` rooms that have files, by rising id above `after`.
    fn rooms(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Deletes up to `limit` files of a room whose log is closed, so that the log need not be told; how many.
    fn empty(&self, room: Uuid, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Up to `limit` ids of files and of unwanted objects, rising above `after`.
    fn known(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// Up to `limit` objects that are still to be removed, by rising id above `after`.
    fn unwanted(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// These objects are removed.
    fn removed(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;

    /// Up to `limit` files that the log is still to be told of, by rising id above `after`.
    fn forgets(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Forget>>>;

    /// The log knows of these.
    fn forgotten(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<()>>;
}

//! The interface of a log's store for the files of deleted messages.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::RoomKey;

/// A file of a room.
pub type RoomFile = (RoomKey, Uuid);

/// What one step has decided.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The files that no message has, ordered by room.
    pub to_drop: Vec<RoomFile>,
    /// Whether further files may be waiting.
    pub more: bool,
}

/// The files of deleted messages. The deletion itself adds them to the queue.
pub trait DropStore: Send + Sync {
    /// Judges up to `limit` files of the queue. A file that a message of its room still has leaves the queue. Any other
    /// file is marked as deleted in the events of its room, including later ones, and stays in the queue. Safe to
    /// repeat.
    fn judge_files(&self, limit: u32) -> BoxFuture<'_, Result<Judged>>;

    /// Removes files from the queue, because the file service has deleted them.
    fn files_dropped(&self, files: Vec<RoomFile>) -> BoxFuture<'_, Result<()>>;
}

//! Boards beside the bus: each process writes its own, and all processes read them. A board is a table of small values
//! that lives for [`LIFETIME`] after its last writing. Like hints, boards may be lost at any time; their owners write
//! them whole every few seconds.
//!
//! With Redis, a board is one key, so a process can touch no other's entries. Within one process, boards are memory.

mod local;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::bus::Bus;
use crate::{Error, Result};

/// How long a board lives after its last writing.
pub const LIFETIME: Duration = Duration::from_secs(35);
/// Most entries in one look-up. A longer one would make the other users of the server wait.
pub const MAX_LOOK_UP: usize = 1000;
/// How long a call waits.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The name of an entry: 16 bytes, such as a user's id.
pub type Name = [u8; 16];

/// A change of one entry; `None` removes it.
pub type Change = (Name, Option<Vec<u8>>);

/// Some entries of one board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The number that the owner gave its last writing.
    pub counter: u64,
    /// The values of the names, in the order of the look-up.
    pub values: Vec<Option<Vec<u8>>>,
}

/// The boards of all processes on the same bus.
#[derive(Clone)]
pub struct Boards(Arc<dyn Implementation>);

trait Implementation: Send + Sync {
    fn write(&self, board: String, counter: u64, entries: Vec<(Name, Vec<u8>)>) -> BoxFuture<'_, Result<()>>;
    fn change(&self, board: String, counter: u64, changes: Vec<Change>) -> BoxFuture<'_, Result<()>>;
    fn look_up(&self, board: String, names: Vec<Name>) -> BoxFuture<'_, Result<Option<Found>>>;
    fn remove(&self, board: String) -> BoxFuture<'_, Result<()>>;
}

impl Boards {
    /// Opens the boards beside the bus: in the same Redis, over a connection of its own, or in this process, where the
    /// boards are those of this value and its clones. An unreachable Redis is not an error.
    pub fn open(bus: &Bus) -> Self {
        match bus.redis() {
            Some(address) => Self(Arc::new(redis::Redis::new(address))),
            None => Self(Arc::new(local::Local::default())),
        }
    }

    /// Writes a whole board: all other entries are removed.
    ///
    /// # Errors
    /// `unavailable` when Redis does not answer within a second: the board is written or not.
    pub async fn write(&self, board: &str, counter: u64, entries: Vec<(Name, Vec<u8>)>) -> Result<()> {
        within(self.0.write(board.to_owned(), counter, entries)).await
    }

    /// Changes entries of a board. A board that was lost stays lost until it is written whole.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn change(&self, board: &str, counter: u64, changes: Vec<Change>) -> Result<()> {
        within(self.0.change(board.to_owned(), counter, changes)).await
    }

    /// Returns the values of at most [`MAX_LOOK_UP`] names; further names are not looked up. `None` for a board that
    /// does not exist, has expired or was lost.
    ///
    /// # Errors
    /// `unavailable` when Redis does not answer within a second.
    pub async fn look_up(&self, board: &str, mut names: Vec<Name>) -> Result<Option<Found>> {
        names.truncate(MAX_LOOK_UP);
        within(self.0.look_up(board.to_owned(), names)).await
    }

    /// Removes a board.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn remove(&self, board: &str) -> Result<()> {
        within(self.0.remove(board.to_owned())).await
    }
}

async fn within<T>(call: BoxFuture<'_, Result<T>>) -> Result<T> {
    timeout(ANSWER_LIMIT, call).await.unwrap_or_else(|_| Err(Error::unavailable("Redis")))
}

#[cfg(test)]
mod tests;

//! Read-only connections to a SQLite file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::Semaphore;

use super::connection::{connect, span};
use crate::{Error, Result};

/// Steps of SQLite's virtual machine between two looks at the clock, well under a millisecond.
const STEPS: i32 = 1000;

/// A bounded number of read-only connections; clones share them.
#[derive(Clone)]
pub struct Readers(Arc<Shared>);

struct Shared {
    path: PathBuf,
    // Locked to take or return a connection, never across an await.
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, count: usize) -> Self {
        Self(Arc::new(Shared { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(count)) }))
    }

    /// Opens separate connections to the same file, for work that must not occupy the connections of these readers.
    #[must_use]
    pub fn apart(&self, count: usize) -> Self {
        Self::new(self.0.path.clone(), count)
    }

    /// Runs `work` on a connection. All reads in `work` see one snapshot.
    ///
    /// # Errors
    /// The error of `work`.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _span = span("sqlite read");
        let shared = self.0.clone();
        // The permit belongs to the work, which continues when its caller is dropped.
        let permit = shared.permits.clone().acquire_owned().await.map_err(Error::internal)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = shared.idle.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&shared.path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                    .map_err(Error::internal)?,
            };
            let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let outcome = work(&snapshot);
            drop(snapshot);
            shared.idle.lock().push(connection);
            outcome
        });
        task.await.map_err(Error::internal)?
    }

    /// Like [`read`](Self::read), but a statement that runs when `work` has exceeded the time limit fails.
    ///
    /// # Errors
    /// The error of `work`, which is `timeout` for such a statement.
    pub async fn read_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let bounded = move |connection: &Connection| {
            let begun = Instant::now();
            connection.progress_handler(STEPS, Some(move || begun.elapsed() >= limit))?;
            let outcome = work(connection);
            connection.progress_handler(0, None::<fn() -> bool>)?;
            outcome
        };
        self.read(bounded).await
    }
}

#[cfg(test)]
mod tests;

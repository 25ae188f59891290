//! Read-only connections to a SQLite file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::Semaphore;

use super::connection::{connect, span};
use crate::{Error, Result};

/// Steps of SQLite's virtual machine, well under a millisecond, between two looks at the clock.
const STEPS: i32 = 1000;

/// A bounded number of connections that read at once; clones share them.
#[derive(Clone)]
pub struct Readers(Arc<Shared>);

struct Shared {
    path: PathBuf,
    // Held to take or return a connection, never across an await.
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, count: usize) -> Self {
        Self(Arc::new(Shared { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(count)) }))
    }

    /// Other connections to the same file, for work that may not keep that of these waiting.
    #[must_use]
    pub fn apart(&self, count: usize) -> Self {
        Self::new(self.0.path.clone(), count)
    }

    /// Runs `work` on a connection; several reads within see one snapshot.
    ///
    /// # Errors
    /// What `work` returns.
    pub async fn read<T: Send + 'static>(&self, work: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let _span = span("sqlite read");
        let shared = self.0.clone();
        // It goes with the work, which goes on when its caller leaves.
        let permit = shared.permits.clone().acquire_owned().await.map_err(Error::internal)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = shared.idle.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => {
                    connect(&shared.path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(Error::internal)?
                }
            };
            let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let outcome = work(&snapshot);
            drop(snapshot);
            shared.idle.lock().push(connection);
            outcome
        });
        task.await.map_err(Error::internal)?
    }

    /// The same, but a statement that runs when `work` has taken so long fails.
    ///
    /// # Errors
    /// What `work` returns, which is `timeout` for such a statement.
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
mod tests {
    use super::*;
    use crate::{Code, testing};

    fn readers() -> Readers {
        let path = testing::directory().join("test.db");
        connect(&path, OpenFlags::default()).unwrap();
        Readers::new(path, 1)
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_and_the_connection_goes_on() {
        let readers = readers();
        let count = |until: i64| {
            move |connection: &Connection| {
                let sql = "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?1) SELECT count(*) FROM n";
                Ok(connection.query_row(sql, [until], |row| row.get::<_, i64>(0))?)
            }
        };
        let ended = readers.read_within(Duration::from_millis(1), count(i64::MAX)).await.unwrap_err();
        assert_eq!(ended.code, Code::Timeout);
        assert_eq!(readers.read(count(10_000)).await.unwrap(), 10_000);
    }

    #[tokio::test]
    async fn others_do_not_wait_and_a_caller_that_leaves_frees_no_connection_before_its_work_ends() {
        let busy = readers();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let mut left = Box::pin(busy.read(move |_| {
            let _ = begin.send(());
            released.recv().map_err(Error::internal)
        }));
        tokio::select! { _ = &mut left => panic!("it waits"), _ = begun => drop(left) }

        busy.apart(1).read(|_| Ok(())).await.unwrap();
        let mut next = Box::pin(busy.read(|_| Ok(())));
        assert!(futures::poll!(&mut next).is_pending());
        assert_eq!(busy.0.permits.available_permits(), 0);
        release.send(()).unwrap();
        next.await.unwrap();
    }
}

//! Operations that succeed only once, such as the removal of a member. A caller that receives no answer repeats the
//! call with the same id; without a record of the first attempt, the repeat would fail because of what the first one
//! did. A service records such an operation when it has checked the caller's right, before it changes anything. When a
//! repeat then finds nothing left to do, the record shows that the change was this operation's own.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use rusqlite::params;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Result;
use crate::clock::now_ms;
use crate::pg::Pool;
use crate::sqlite::Database;

/// How long an operation is remembered, in milliseconds: far longer than a caller repeats a call (10 minutes).
pub const KEPT_MS: i64 = 600_000;
/// How often older operations are deleted.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The operations of the last minutes, in a table of the service's store. A call without an id is never recorded.
pub trait Operations: Send + Sync {
    /// Records an operation on a subject: a user, a room or a file.
    fn begin(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Returns whether this operation on this subject was recorded.
    fn has_begun(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Deletes the operations from before a time.
    fn forget(&self, before_ms: i64) -> BoxFuture<'_, Result<()>>;
}

/// Deletes old operations without end.
pub async fn keep_bounded(operations: &dyn Operations) {
    loop {
        if let Err(error) = operations.forget(now_ms() - KEPT_MS).await {
            tracing::debug!(%error, "cannot delete old operations");
        }
        sleep(FORGET_EVERY).await;
    }
}

impl Operations for Pool {
    fn begin(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<()>> {
        const SQL: &str = "/* operation */
            INSERT INTO operations (id, subject, at_ms) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
        async move {
            let Some(id) = id else { return Ok(()) };
            self.execute(SQL, &[&id, &subject, &now_ms()]).await.map(drop)
        }
        .boxed()
    }

    fn has_begun(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<bool>> {
        const SQL: &str = "/* operation */ SELECT 1 FROM operations WHERE id = $1 AND subject = $2";
        async move {
            let Some(id) = id else { return Ok(false) };
            Ok(!self.query(SQL, &[&id, &subject]).await?.is_empty())
        }
        .boxed()
    }

    fn forget(&self, before_ms: i64) -> BoxFuture<'_, Result<()>> {
        const SQL: &str = "/* operation */ DELETE FROM operations WHERE at_ms < $1";
        async move { self.execute(SQL, &[&before_ms]).await.map(drop) }.boxed()
    }
}

impl Operations for Database {
    fn begin(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<()>> {
        const SQL: &str = "/* operation */
            INSERT INTO operations (id, subject, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING";
        async move {
            let Some(id) = id else { return Ok(()) };
            self.write(move |connection| {
                connection.prepare_cached(SQL)?.execute(params![id.as_bytes(), subject.as_bytes(), now_ms()])?;
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn has_begun(&self, id: Option<Uuid>, subject: Uuid) -> BoxFuture<'_, Result<bool>> {
        const SQL: &str = "/* operation */ SELECT 1 FROM operations WHERE id = ?1 AND subject = ?2";
        async move {
            let Some(id) = id else { return Ok(false) };
            self.read(move |connection| {
                Ok(connection.prepare_cached(SQL)?.exists(params![id.as_bytes(), subject.as_bytes()])?)
            })
            .await
        }
        .boxed()
    }

    fn forget(&self, before_ms: i64) -> BoxFuture<'_, Result<()>> {
        const SQL: &str = "/* operation */ DELETE FROM operations WHERE at_ms < ?1";
        async move {
            self.write(move |connection| {
                connection.prepare_cached(SQL)?.execute([before_ms])?;
                Ok(())
            })
            .await
        }
        .boxed()
    }
}

/// Checks an implementation over an empty table.
///
/// # Panics
/// When it does not keep the contract.
#[cfg(feature = "testing")]
pub async fn check(operations: &dyn Operations) {
    let (id, subject) = (Some(Uuid::now_v7()), Uuid::now_v7());
    let has_begun = async |id, subject| operations.has_begun(id, subject).await.expect("an answer");
    assert!(!has_begun(id, subject).await);
    for _ in 0..2 {
        operations.begin(id, subject).await.expect("recorded");
        operations.begin(None, subject).await.expect("ignored");
    }
    assert!(has_begun(id, subject).await);
    assert!(!has_begun(id, Uuid::now_v7()).await, "of another subject");
    assert!(!has_begun(None, subject).await && !has_begun(Some(Uuid::now_v7()), subject).await);
    operations.forget(now_ms() - KEPT_MS).await.expect("done");
    assert!(has_begun(id, subject).await);
    operations.forget(now_ms() + KEPT_MS).await.expect("done");
    assert!(!has_begun(id, subject).await);
}

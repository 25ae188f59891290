//! Work on the store that runs at intervals: it keeps every table bounded.

use confab_common::clock::now_ms;
use confab_common::{Result, operations};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::latest_expiry;
use crate::store::Store;
use crate::username;

/// Maximum rows that one statement deletes, so that the statement stays short.
const PURGE_BATCH: u32 = 1000;
/// Maximum accounts that one statement gives skeletons.
const FILL_BATCH: u32 = 500;
/// How long the audit keeps an entry, and an hour more, because the clock of the database decides what can be deleted.
const AUDIT_LIFE_MS: i64 = (90 * 24 + 1) * 3_600_000;
/// How long after its expiry a gateway may still accept a token, because of leeway or a slow clock.
pub(super) const LEEWAY_MS: i64 = 60_000;

/// Deletes expired revocations, sessions, invites and password resets and entries of the audit from more than 90 days
/// ago, frees the names of accounts that were deleted 30 days ago and the former names of renamed users, and returns the number of all these.
///
/// # Errors
/// Errors of the store.
pub async fn purge(store: &dyn Store) -> Result<u64> {
    // An earlier release stored every expiry without a limit.
    store.shorten(latest_expiry()).await?;
    let now = now_ms();
    store.operations().forget(now - operations::KEPT_MS).await?;
    Ok(in_batches(|| store.purge(now - LEEWAY_MS, PURGE_BATCH)).await?
        + in_batches(|| store.purge_sessions(now - LEEWAY_MS, PURGE_BATCH)).await?
        + in_batches(|| store.purge_secrets(now, PURGE_BATCH)).await?
        + in_batches(|| store.free_names(now, PURGE_BATCH)).await?
        // The last one, because it fails for a role that has been granted its privileges since the last `migrate`.
        + in_batches(|| store.purge_audit(now - AUDIT_LIFE_MS, PURGE_BATCH)).await?)
}

/// Repeats a statement until it finds less than a full batch.
async fn in_batches<'a>(purge: impl Fn() -> BoxFuture<'a, Result<u64>>) -> Result<u64> {
    let mut purged = 0;
    loop {
        let batch = purge().await?;
        purged += batch;
        if batch < u64::from(PURGE_BATCH) {
            return Ok(purged);
        }
    }
}

/// Stores the skeletons of accounts that an earlier release created without one, and returns the number of skeletons.
/// If two accounts look alike, the older account gets the skeleton, and both accounts remain usable.
///
/// # Errors
/// Errors of the store.
pub async fn fill_skeletons(store: &dyn Store) -> Result<u64> {
    let (mut filled, mut after) = (0, Uuid::nil());
    loop {
        let accounts = store.without_skeleton(after, FILL_BATCH).await?;
        let Some((last, _)) = accounts.last() else { return Ok(filled) };
        after = *last;
        let skeleton = |(id, name): (Uuid, String)| (id, username::skeleton(&name));
        filled += store.fill_skeletons(accounts.into_iter().map(skeleton).collect()).await?;
    }
}

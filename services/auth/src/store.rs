//! The store of accounts and revocations.

#[cfg(test)]
mod contract;
mod postgres;
mod sqlite;
mod tables;

use std::sync::Arc;

use confab_common::Result;
use confab_common::store::{StorageConfig, StoreUrl};
use futures::future::BoxFuture;
use uuid::Uuid;

pub use tables::SCHEMA;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// UUIDv7.
    pub id: Uuid,
    /// As the user typed it, in NFC.
    pub username: String,
    /// The form in which names are compared; unique.
    pub username_folded: String,
    /// A PHC string.
    pub password_hash: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// The revocation of a token that has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// 1, 2, 3 … in commit order.
    pub number: u64,
    /// The token's `jti`.
    pub session_id: Uuid,
    /// The token's `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// One page of revocations, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// In ascending order of `number`; purged revocations are missing.
    pub items: Vec<Revocation>,
    /// The newest number assigned; 0 without revocations.
    pub head: u64,
}

/// The operations of a store. Both implementations pass the same contract tests.
pub trait Store: Send + Sync {
    /// Inserts an account and returns it, or returns the account that already has that id.
    ///
    /// # Errors
    /// `username_taken` when another account has the folded name or the skeleton.
    fn create_user(&self, user: User, skeleton: String) -> BoxFuture<'_, Result<User>>;

    /// Returns the ids and names of up to `limit` accounts without a skeleton, with ids above `after` in ascending
    /// order.
    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>>;

    /// Sets the skeletons of accounts that have none, by id, and returns their number. A skeleton that belongs to
    /// another account is skipped.
    fn fill_skeletons(&self, skeletons: Vec<(Uuid, String)>) -> BoxFuture<'_, Result<u64>>;

    fn user(&self, id: Uuid) -> BoxFuture<'_, Result<Option<User>>>;

    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>>;

    /// Revokes a session under the next number, or returns its existing revocation.
    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>>;

    /// Returns up to `limit` revocations with numbers above `after`.
    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>>;

    /// Deletes up to `limit` revocations of tokens that expired before `expired_before_ms`, and returns their number.
    /// The numbers of other revocations and the head do not change.
    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Moves expiries after `latest_ms` to `latest_ms`, and returns the number of changed revocations.
    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>>;
}

pub async fn open(url: &StoreUrl, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Arc::new(sqlite::Sqlite::open(path)?),
        StoreUrl::Postgres(url) => Arc::new(postgres::Postgres::open(url, &storage.postgres).await?),
    })
}

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

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// UUIDv7.
    pub id: Uuid,
    /// As its owner typed it, in NFC.
    pub username: String,
    /// The form in which names are compared; unique.
    pub username_folded: String,
    /// A PHC string.
    pub password_hash: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// Marks a token as refused although it has not expired.
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
    /// By rising number; purged ones are missing.
    pub items: Vec<Revocation>,
    /// The newest number assigned; 0 when there is none.
    pub head: u64,
}

/// The operations of a store; both implementations pass the same contract tests.
pub trait Store: Send + Sync {
    /// Inserts an account and returns it, or the one that already has that id.
    ///
    /// # Errors
    /// `username_taken` when another account has the folded name or the skeleton.
    fn create_user(&self, user: User, skeleton: String) -> BoxFuture<'_, Result<User>>;

    /// Ids and names of at most `limit` accounts without a skeleton, by rising id above `after`.
    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>>;

    /// Sets the skeletons of accounts that have none, by id; returns how many. A skeleton that another account has is
    /// skipped.
    fn fill_skeletons(&self, skeletons: Vec<(Uuid, String)>) -> BoxFuture<'_, Result<u64>>;

    /// The account with this id.
    fn user(&self, id: Uuid) -> BoxFuture<'_, Result<Option<User>>>;

    /// The account with this folded name.
    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>>;

    /// Revokes a session under the next number, or returns its existing revocation.
    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>>;

    /// At most `limit` revocations numbered above `after`.
    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>>;

    /// Deletes at most `limit` revocations of tokens that expired before `expired_before_ms`; returns how many. Numbers
    /// and head stay.
    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;

    /// Lets revocations that expire after `latest_ms` expire then; returns how many.
    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>>;
}

/// Opens and migrates the store at this URL.
pub async fn open(url: &StoreUrl, storage: &StorageConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Arc::new(sqlite::Sqlite::open(path)?),
        StoreUrl::Postgres(url) => Arc::new(postgres::Postgres::open(url, &storage.postgres).await?),
    })
}

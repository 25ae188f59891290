//! Server keys.

use confab_common::Result;
use confab_proto::server_key::Scopes;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Sha256;
use super::audit::Entry;

/// A server key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKey {
    /// UUIDv7.
    pub id: Uuid,
    /// May be empty.
    pub name: String,
    /// The SHA-256 of the whole key.
    pub sha256: Sha256,
    pub scopes: Scopes,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// The operations on server keys.
pub trait KeyStore: Send + Sync {
    /// Inserts a key and the entry about it; `false` when `max` keys exist, or the key that acts does not.
    fn create_key(&self, key: ServerKey, max: u32, entry: Entry) -> BoxFuture<'_, Result<bool>>;

    /// Returns all keys, the oldest first.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<ServerKey>>>;

    fn key(&self, id: Uuid) -> BoxFuture<'_, Result<Option<ServerKey>>>;

    /// Deletes a key and inserts the entry about it; `false` for an unknown key.
    fn delete_key(&self, id: Uuid, entry: Entry) -> BoxFuture<'_, Result<bool>>;
}

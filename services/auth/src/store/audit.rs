//! The audit: which server key did what. Entries are only added, and deleted after 90 days.

use confab_common::Result;
use confab_common::clock::now_ms;
use futures::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

/// A server key that acts, or with `key_id: None` an operator with a program on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    pub key_id: Option<Uuid>,
    /// The id of the HTTP request; empty for an operator.
    pub request_id: String,
}

/// An entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// UUIDv7.
    pub id: Uuid,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub actor: Actor,
    /// The name of the act.
    pub act: String,
    /// The id of the object of the act.
    pub object: String,
    /// A JSON object.
    pub details: Option<String>,
}

impl Entry {
    /// Creates an entry about an act of now.
    pub fn new(actor: Actor, act: &str, object: Uuid) -> Self {
        let (act, object) = (act.to_owned(), object.to_string());
        Self { id: Uuid::now_v7(), at_ms: now_ms(), actor, act, object, details: None }
    }

    /// Adds details, which must be a JSON object.
    pub fn with(self, details: &Value) -> Self {
        Self { details: Some(details.to_string()), ..self }
    }
}

/// A position in the audit, which is ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPosition {
    pub at_ms: i64,
    pub id: Uuid,
}

impl AuditPosition {
    /// After every entry.
    pub const TOP: Self = Self { at_ms: i64::MAX, id: Uuid::max() };

    pub fn of(entry: &Entry) -> Self {
        Self { at_ms: entry.at_ms, id: entry.id }
    }
}

/// The operations on the audit. Acts on this store write their entries themselves, in their own transactions.
pub trait AuditStore: Send + Sync {
    /// Adds an entry. An entry whose id exists changes nothing.
    fn record(&self, entry: Entry) -> BoxFuture<'_, Result<()>>;

    /// Returns up to `limit` entries before a position, the newest first.
    fn audit(&self, below: AuditPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Entry>>>;

    /// Deletes up to `limit` entries from before `before_ms`, and returns their number. The database rejects the
    /// deletion of entries of the last 90 days.
    fn purge_audit(&self, before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;
}

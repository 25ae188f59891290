//! Users who share a room.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

/// The question which users share a room.
pub trait AcquaintanceStore {
    /// Returns those of `others` who are members of a room of which `user` is a member, each once and in no particular
    /// order. `others` has no duplicates.
    fn acquaintances(&self, user: Uuid, others: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<Uuid>>>;
}

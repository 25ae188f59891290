//! Secrets that work a limited number of times: invites and password resets.

use confab_common::Result;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Sha256;
use super::audit::Entry;
use super::revocations::{Cut, Revocation};

/// The user of a password reset that was used, and the entries that end the user's sessions and tokens.
pub type Redeemed = (Uuid, Vec<Revocation>);

/// A new invite. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct Invite {
    pub id: Uuid,
    pub code_sha256: Sha256,
    /// How many accounts can be created with it.
    pub uses: u32,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    /// Written with the insertion.
    pub entry: Option<Entry>,
}

/// A new one-time token that sets a password. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct PasswordReset {
    pub user_id: Uuid,
    pub token_sha256: Sha256,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// The operations on invites and password resets.
pub trait InviteStore: Send + Sync {
    /// Inserts an invite; `false` when `max` invites are valid already.
    fn create_invite(&self, invite: Invite, max: u32) -> BoxFuture<'_, Result<bool>>;

    /// Returns whether an invite has a use left at `now_ms`.
    fn has_invite(&self, code_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<bool>>;

    /// Inserts a password reset, which replaces the user's earlier one.
    fn create_reset(&self, reset: PasswordReset) -> BoxFuture<'_, Result<()>>;

    /// Returns the user of a password reset that is valid at `now_ms`.
    fn reset_user(&self, token_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<Option<Uuid>>>;

    /// Uses a password reset, which works once: stores the hash, and ends the sessions and tokens of the user. Returns
    /// `None` when the reset is not valid at `now_ms`, or the account is deleted.
    fn redeem_reset(
        &self,
        token_sha256: Sha256,
        password_hash: String,
        now_ms: i64,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Redeemed>>>;

    /// Deletes up to `limit` invites and `limit` password resets that are used up or expired before `now_ms`, and
    /// returns their number.
    fn purge_secrets(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>>;
}

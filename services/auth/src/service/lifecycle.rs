//! The states of an account: active, suspended, deleted.

use std::net::IpAddr;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Result, text};
use uuid::Uuid;

use super::{Accounts, latest_expiry, within_bounds};
use crate::password::NO_ACCOUNT;
use crate::store::{Actor, Deletion, Entry, Revocation};

/// How long the name of a deleted account stays unavailable, so that no other user can pose as the deleted one.
const QUARANTINE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Accounts {
    /// Rejects every token and every login of a user until [`restore`](Self::restore).
    ///
    /// # Errors
    /// `not_found`; `conflict` for a deleted account.
    pub async fn suspend(&self, user_id: Uuid, actor: Option<Actor>) -> Result<Vec<Revocation>> {
        let entry = actor.map(|actor| Entry::new(actor, "user.suspend", user_id));
        let ended = self.store.suspend(user_id, entry).await?;
        self.announce(&ended);
        Ok(ended)
    }

    /// Ends a suspension. Returns `None` when the account is active.
    ///
    /// # Errors
    /// `not_found`; `conflict` for a deleted account.
    pub async fn restore(&self, user_id: Uuid, actor: Option<Actor>) -> Result<Option<Revocation>> {
        let entry = actor.map(|actor| Entry::new(actor, "user.restore", user_id));
        let restored = self.store.restore(user_id, latest_expiry(), entry).await?;
        self.announce(restored.as_slice());
        Ok(restored)
    }

    /// Deletes an account, and rejects every token of its user permanently. The room service removes the user from all
    /// rooms afterwards.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete(&self, user_id: Uuid, actor: Option<Actor>) -> Result<Vec<Revocation>> {
        let entry = actor.map(|actor| Entry::new(actor, "user.delete", user_id));
        let now_ms = now_ms();
        let free_name_at_ms = now_ms.saturating_add(QUARANTINE.as_millis() as i64);
        let deletion = Deletion { id: user_id, password_hash: NO_ACCOUNT.into(), now_ms, free_name_at_ms, entry };
        let ended = self.store.delete_user(deletion).await?;
        self.announce(&ended);
        Ok(ended)
    }

    /// Deletes the account of a user who knows its password. A repeat of the same operation returns no revocations.
    ///
    /// # Errors
    /// `invalid_request`; `forbidden` for a wrong password and for a user of the app's own issuer; `not_found` for an
    /// unknown or deleted user.
    pub async fn delete_own(
        &self,
        user_id: Uuid,
        password: String,
        address: IpAddr,
        operation: Option<Uuid>,
    ) -> Result<Vec<Revocation>> {
        within_bounds(&[("password", &password)])?;
        text::no_nul("password", &password)?;
        let operations = self.store.operations();
        let user = match self.present(user_id).await {
            Err(error) if error.code == Code::NotFound && operations.has_begun(operation, user_id).await? => {
                return Ok(Vec::new());
            }
            user => user?,
        };
        self.confirm(&user, password, address).await?;
        operations.begin(operation, user_id).await?;
        self.delete(user_id, None).await
    }
}

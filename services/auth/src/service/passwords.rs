//! Changes of passwords.

use std::net::IpAddr;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result, text};
use uuid::Uuid;

use super::sessions::cut;
use super::{Accounts, named, within_bounds};
use crate::password;
use crate::secret::{reset_sha256, reset_token};
use crate::store::{PasswordReset, Revocation, State, Store, User};

/// How long a password-reset token is valid.
const RESET_LIFE: Duration = Duration::from_secs(3600);

impl Accounts {
    /// Changes a password, and ends all other sessions. A repeat of the same operation returns no revocations: the first
    /// attempt has announced them.
    ///
    /// # Errors
    /// `invalid_request`; `forbidden` for a wrong current password and for a user of the app's own issuer; `not_found`
    /// for an unknown or deleted user.
    pub async fn change_password(
        &self,
        user_id: Uuid,
        session_id: Uuid,
        current: String,
        new: String,
        address: IpAddr,
        operation: Option<Uuid>,
    ) -> Result<Vec<Revocation>> {
        within_bounds(&[("currentPassword", &current), ("newPassword", &new)])?;
        text::no_nul("currentPassword", &current)?;
        let user = self.present(user_id).await?;
        let hashable = password::check("newPassword", &new, &user.username)?;
        let operations = self.store.operations();
        if operations.has_begun(operation, user_id).await? && self.confirm(&user, new, address).await.is_ok() {
            return Ok(Vec::new());
        }
        self.confirm(&user, current, address).await?;
        operations.begin(operation, user_id).await?;
        let turn = self.passwords.turn(self.ticket(address, &user.username_folded)).await?;
        let after = self.passwords.hash(turn, hashable).await?;
        let ended = self.store.change_password(user_id, user.password_hash, after, cut(Some(session_id))).await?;
        // Otherwise the password has changed since, so the current one is wrong now.
        let ended = ended.ok_or_else(wrong_password)?;
        self.announce(&ended);
        Ok(ended)
    }

    /// Sets a new password with a one-time token, and ends all sessions.
    ///
    /// # Errors
    /// `invalid_request`; `forbidden` for a token that is unknown, expired or used.
    pub async fn reset_password(&self, token: &str, new: String, address: IpAddr) -> Result<()> {
        within_bounds(&[("newPassword", &new)])?;
        let token = reset_sha256(token).ok_or_else(not_valid)?;
        let user_id = self.store.reset_user(token, now_ms()).await?.ok_or_else(not_valid)?;
        let user = self.store.user(user_id).await?.ok_or_else(not_valid)?;
        let hashable = password::check("newPassword", &new, &user.username)?;
        let turn = self.passwords.turn(self.ticket(address, &user.username_folded)).await?;
        let hash = self.passwords.hash(turn, hashable).await?;
        let redeemed = self.store.redeem_reset(token, hash, now_ms(), cut(None)).await?;
        let (_, ended) = redeemed.ok_or_else(not_valid)?;
        self.announce(&ended);
        Ok(())
    }

    /// Returns an account that is not deleted.
    pub(super) async fn present(&self, user_id: Uuid) -> Result<User> {
        let user = self.store.user(user_id).await?.filter(|user| user.state != State::Deleted);
        user.ok_or_else(|| Error::not_found("user"))
    }

    /// Checks the password of a user who is logged in. The caller has checked the length of the typed text.
    pub(super) async fn confirm(&self, user: &User, typed: String, address: IpAddr) -> Result<()> {
        require_password(user)?;
        let ticket = self.ticket(address, &user.username_folded);
        let turn = self.passwords.turn(ticket).await?;
        if self.passwords.verify(turn, ticket, typed, Some(user.password_hash.clone())).await? {
            Ok(())
        } else {
            Err(wrong_password())
        }
    }
}

/// Creates a one-time token that sets the password of the account with a typed name. It replaces an earlier one.
///
/// # Errors
/// `not_found` for an unknown name; `forbidden` for a user of the app's own issuer.
pub async fn create_reset(store: &dyn Store, username: &str) -> Result<String> {
    let user = named(store, username).await?.filter(|user| user.state != State::Deleted);
    let user = user.ok_or_else(|| Error::not_found("user"))?;
    require_password(&user)?;
    let (token, created_at_ms) = (reset_token()?, now_ms());
    let token_sha256 = reset_sha256(&token).ok_or_else(|| Error::internal("a token in its own form"))?;
    let expires_at_ms = created_at_ms.saturating_add(RESET_LIFE.as_millis() as i64);
    store.create_reset(PasswordReset { user_id: user.id, token_sha256, created_at_ms, expires_at_ms }).await?;
    Ok(token)
}

/// Rejects a user of the app's own issuer.
fn require_password(user: &User) -> Result<()> {
    if user.claimed.is_none() {
        return Ok(());
    }
    Err(Error::new(Code::Forbidden, "the account has no password: its user signs in at the app's own issuer"))
}

fn wrong_password() -> Error {
    Error::new(Code::Forbidden, "the password is wrong")
}

fn not_valid() -> Error {
    Error::new(Code::Forbidden, "the token is not valid: it is unknown, expired or used")
}

//! Sessions after they were opened: refresh, lists, and their end.

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result};
use uuid::Uuid;

use super::{Accounts, Refresh, Session, latest_expiry, seen};
use crate::client::Client;
use crate::refresh::RefreshToken;
use crate::store::{Actor, Cut, Entry, Revocation, Revocations, Rotated, Rotation, StoredSession};

/// Maximum revocations in one answer.
const MAX_REVOCATIONS: u32 = 1000;

impl Accounts {
    /// Continues a session with its refresh token.
    ///
    /// # Errors
    /// `unauthorized` for a token that is malformed, unknown, expired or revoked; also for one whose successor was used
    /// more than 10 s ago, which ends the session.
    pub async fn refresh(&self, token: &str, client: &Client) -> Result<Session> {
        let token = RefreshToken::parse(token).ok_or_else(refused)?;
        let (session_id, now_ms) = (token.session_id, now_ms());
        let successors = self.issuer.refresh_keys.successors(&token);
        let (life, expires_at_ms) = (self.issuer.lifetimes.of_token(true), self.refresh_expiry(now_ms));
        let rotation = Rotation {
            session_id,
            presented: token.sha256(),
            successors: successors.iter().map(RefreshToken::sha256).collect(),
            is_genuine: self.issuer.refresh_keys.issued(&token),
            now_ms,
            expires_at_ms,
            token_expires_at_ms: now_ms.saturating_add(life.as_millis() as i64),
            seen: seen(client),
        };
        match self.store.rotate(rotation).await? {
            Rotated::Next { key, user } => {
                let next = successors.into_iter().nth(key).ok_or_else(|| Error::internal("one successor per key"))?;
                let token = self.issuer.tokens.issue(user.id, &user.username, session_id, now_ms / 1000, life)?;
                Ok(Session { token, refresh: Some(Refresh { token: next, expires_at_ms }), user: *user })
            }
            Rotated::Reused { user_id, token_expires_at_ms } => {
                tracing::warn!(%session_id, %user_id, "an old refresh token was used; the session ends");
                let revocation = self.store.revoke(session_id, user_id, token_expires_at_ms).await?;
                self.announce(&[revocation]);
                Err(refused())
            }
            Rotated::Unknown => Err(refused()),
        }
    }

    /// Returns the sessions of a user, the last used one first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sessions(&self, user_id: Uuid) -> Result<Vec<StoredSession>> {
        self.store.sessions(user_id, now_ms()).await
    }

    /// Revokes a session permanently and announces the revocation; a repeat announces it again. No token lives longer
    /// than 8760 h, so a revocation with a later expiry is kept only for that long.
    ///
    /// # Errors
    /// `invalid_request` when the expiry is missing.
    pub async fn logout(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> Result<()> {
        if expires_at_ms <= 0 {
            return Err(Error::field("expiresAtMs", "must be the token's expiry"));
        }
        let revocation = self.store.revoke(session_id, user_id, expires_at_ms.min(latest_expiry())).await?;
        self.announce(&[revocation]);
        Ok(())
    }

    /// Revokes one session of a user; a repeat announces the revocation again.
    ///
    /// # Errors
    /// `not_found` for a session that is unknown, expired, or of another user.
    pub async fn end_session(&self, user_id: Uuid, session_id: Uuid) -> Result<Revocation> {
        let ended = self.store.end_session(user_id, session_id, now_ms()).await?;
        let revocation = ended.ok_or_else(|| Error::not_found("session"))?;
        self.announce(std::slice::from_ref(&revocation));
        Ok(revocation)
    }

    /// Revokes all sessions and tokens of a user, except one session.
    ///
    /// # Errors
    /// `not_found` for an unknown or deleted user.
    pub async fn end_sessions(
        &self,
        user_id: Uuid,
        except: Option<Uuid>,
        actor: Option<Actor>,
    ) -> Result<Vec<Revocation>> {
        let entry = actor.map(|actor| Entry::new(actor, "user.end_sessions", user_id));
        let ended = self.store.end_sessions(user_id, cut(except), entry).await?;
        let ended = ended.ok_or_else(|| Error::not_found("user"))?;
        self.announce(&ended);
        Ok(ended)
    }

    /// Returns up to `limit` revocations with numbers above `after`; 0 stands for the maximum, 1000.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn revocations(&self, after: u64, limit: u32) -> Result<Revocations> {
        let limit = if limit == 0 { MAX_REVOCATIONS } else { limit.min(MAX_REVOCATIONS) };
        self.store.revocations(after, limit).await
    }
}

/// Ends the tokens issued until now. Times of issue are whole seconds, so the present second is included.
pub fn cut(except: Option<Uuid>) -> Cut {
    Cut { except, not_before_s: now_ms() / 1000 + 1, expires_at_ms: latest_expiry() }
}

/// One text for all reasons, so that an attacker learns nothing from it.
fn refused() -> Error {
    Error::new(Code::Unauthorized, "the refresh token is not valid")
}

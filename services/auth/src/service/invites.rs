//! Who may sign up: every client, clients with an invite, or none.

use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result};
use serde_json::json;
use uuid::Uuid;

use super::{Accounts, latest_expiry};
use crate::config::SignupMode;
use crate::secret::{invite_code, invite_sha256};
use crate::store::{Actor, Entry, Invite, Sha256, no_invite};

/// Allowed numbers of uses of an invite.
const USES: std::ops::RangeInclusive<u32> = 1..=1000;
/// Maximum number of valid invites.
const MAX_INVITES: u32 = 10_000;
/// The lifetime of an invite, unless the caller chooses another.
const DEFAULT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A new invite.
pub struct NewInvite {
    pub code: String,
    pub expires_at_ms: i64,
}

impl Accounts {
    /// Creates an invite; an expiry of 0 stands for 7 days from now.
    ///
    /// # Errors
    /// `invalid_request`; `conflict` when 10,000 invites are valid.
    pub async fn create_invite(&self, uses: u32, expires_at_ms: i64, actor: Option<Actor>) -> Result<NewInvite> {
        if !USES.contains(&uses) {
            return Err(Error::field("uses", "must be from 1 to 1000"));
        }
        let now_ms = now_ms();
        let expires_at_ms = match expires_at_ms {
            0 => now_ms.saturating_add(DEFAULT_LIFE.as_millis() as i64),
            time if time > now_ms && time <= latest_expiry() => time,
            _ => return Err(Error::field("expiresAt", "must be in the future, at most 8760 h from now")),
        };
        let code = invite_code()?;
        let code_sha256 = invite_sha256(&code).ok_or_else(|| Error::internal("a code in its own form"))?;
        let (id, details) = (Uuid::now_v7(), json!({"uses": uses, "expiresAtMs": expires_at_ms}));
        let entry = actor.map(|actor| Entry::new(actor, "invite.create", id).with(&details));
        let invite = Invite { id, code_sha256, uses, created_at_ms: now_ms, expires_at_ms, entry };
        if self.store.create_invite(invite, MAX_INVITES).await? {
            Ok(NewInvite { code, expires_at_ms })
        } else {
            Err(Error::new(Code::Conflict, format!("{MAX_INVITES} invites are valid; wait until some are used")))
        }
    }

    /// Returns the invite that the creation of the account must use.
    pub(super) async fn admit(&self, code: &str) -> Result<Option<(Sha256, i64)>> {
        match self.signup {
            SignupMode::Open => Ok(None),
            SignupMode::Off => Err(Error::new(Code::Forbidden, "signup is off")),
            SignupMode::Invite => {
                let (code, now_ms) = (invite_sha256(code).ok_or_else(no_invite)?, now_ms());
                if self.store.has_invite(code, now_ms).await? { Ok(Some((code, now_ms))) } else { Err(no_invite()) }
            }
        }
    }
}

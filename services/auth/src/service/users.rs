//! Users that the back end of an app manages, with a server key.

use std::ops::RangeInclusive;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result};
use serde_json::json;
use uuid::Uuid;

use super::upkeep::LEEWAY_MS;
use super::{Accounts, Change, Session, named, time_of_issue, within_bounds};
use crate::password::NO_ACCOUNT;
use crate::store::{Actor, Entry, Name, NewSession, Profile, Reservation, Seen, State, User, is_deleted, name_taken};
use crate::username::{self, Username};

/// Allowed lifetimes of a token, in seconds, and that of a request without one.
const LIVES: RangeInclusive<u32> = 1..=86_400;
const DEFAULT_LIFE: u32 = 900;
/// How often an operation is repeated because the account has changed meanwhile.
const TRIES: usize = 3;

impl Accounts {
    /// Creates an account without a password, or changes the name and the profile of an account. Returns the account,
    /// and whether it is new.
    ///
    /// # Errors
    /// `invalid_request`; `too_large` for data above 4 KiB; `username_taken`; `conflict` for a deleted account.
    pub async fn put_user(&self, id: Uuid, typed: &str, change: Change, actor: Actor) -> Result<(User, bool)> {
        if id.is_nil() || id.is_max() {
            return Err(Error::field("userId", "must be another id"));
        }
        within_bounds(&[("username", typed)])?;
        let Username { kept, folded } = Username::parse(typed)?;
        let change = change.check()?;
        let name = Name { skeleton: username::skeleton(&kept), username: kept, folded };
        let details = json!({"username": name.username});
        let store = self.store.as_ref();
        // A deleted account has the name only for a time. Or the name is a former one of this user.
        let other = named(store, typed).await?.filter(|other| other.id != id && other.state != State::Deleted);
        if other.is_some() {
            return Err(name_taken());
        }
        for _ in 0..TRIES {
            let present = self.store.user(id).await?;
            if present.as_ref().is_some_and(|user| user.state == State::Deleted) {
                return Err(is_deleted());
            }
            if present.is_some() {
                let entry = Entry::new(actor.clone(), "user.change", id).with(&details);
                let former = self.reservation();
                if let Some(user) = self.store.change_user(id, name.clone(), change.clone(), former, entry).await? {
                    return Ok((user, false));
                }
                continue;
            }
            let user = User {
                id,
                username: name.username.clone(),
                username_folded: name.folded.clone(),
                password_hash: NO_ACCOUNT.into(),
                created_at_ms: now_ms(),
                state: State::Active,
                profile: change.clone().apply(Profile::default()),
                claimed: None,
            };
            let entry = Entry::new(actor.clone(), "user.create", id).with(&details);
            let stored = self.store.create_user(user.clone(), name.skeleton.clone(), None, Some(entry)).await?;
            if stored == user {
                return Ok((user, true));
            }
        }
        Err(Error::unavailable("the account"))
    }

    /// How a former name stays reserved while tokens may carry it, so that no two users show one name.
    fn reservation(&self) -> Reservation {
        let longest = self.issuer.lifetimes.token.max(Duration::from_secs((*LIVES.end()).into()));
        let free_name_at_ms = now_ms().saturating_add(longest.as_millis() as i64).saturating_add(LEEWAY_MS);
        Reservation { id: Uuid::now_v7(), password_hash: NO_ACCOUNT.into(), free_name_at_ms }
    }

    /// Opens a session of a user without a password, whose token is valid for `ttl_s` seconds; 0 stands for 15 minutes.
    ///
    /// # Errors
    /// `invalid_request`; `not_found` for an unknown or deleted user; `forbidden` for a suspended one.
    pub async fn issue_token(&self, user_id: Uuid, ttl_s: u32, actor: Actor) -> Result<Session> {
        let ttl_s = if ttl_s == 0 { DEFAULT_LIFE } else { ttl_s };
        if !LIVES.contains(&ttl_s) {
            return Err(Error::field("ttl", format!("must be from {} to {} seconds", LIVES.start(), LIVES.end())));
        }
        let life = Duration::from_secs(ttl_s.into());
        for _ in 0..TRIES {
            let user = self.present(user_id).await?;
            let (id, created_at_ms) = (Uuid::now_v7(), now_ms());
            let details = json!({"sessionId": id, "ttl": ttl_s});
            let session = NewSession {
                id,
                user_id,
                created_at_ms,
                token_expires_at_ms: created_at_ms.saturating_add(life.as_millis() as i64),
                refresh: None,
                // The client of the user is unknown: the request comes from the app's back end.
                seen: Seen { user_agent: String::new(), address: String::new() },
                entry: Some(Entry::new(actor.clone(), "token.create", user_id).with(&details)),
            };
            match self.store.open_session(session, user.password_hash.clone()).await {
                Ok(opened) => {
                    self.announce(&opened.revoked);
                    let issued_at = time_of_issue(opened.tokens_from_s).await;
                    let token = self.issuer.tokens.issue(user.id, &user.username, id, issued_at, life)?;
                    return Ok(Session { token, refresh: None, user });
                }
                // The password has changed since the account was read, or the account was deleted.
                Err(error) if error.code == Code::InvalidCredentials => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unavailable("the account"))
    }

    /// Returns the user who has a file as picture.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn avatar_owner(&self, file_id: Uuid) -> Result<User> {
        self.store.avatar_owner(file_id).await?.ok_or_else(|| Error::not_found("picture"))
    }
}

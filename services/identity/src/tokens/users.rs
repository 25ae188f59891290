//! The usernames of the users of the app's own issuers. The auth service makes them, because tokens contain any names.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::issuers::ForeignToken;
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{AccountState, EnsureUserRequest, GetUserRequest, UserRef};
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// Maximum number of users whose names are kept; each takes about 300 bytes.
const MAX_USERS: u64 = 100_000;
/// How often the auth service receives the claims of a user's token.
const RENEW_EVERY: Duration = Duration::from_secs(3600);
/// The pause after a failed renewal.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// How long a name is used while the auth service does not answer.
const KEEP: Duration = Duration::from_secs(24 * 3600);
const ENSURE: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));

/// The known users; clones share them.
#[derive(Clone)]
pub struct Users {
    auth: AuthServiceClient<Transport>,
    /// Whether the first token of a user creates the account.
    creates: bool,
    known: Cache<Uuid, Arc<Known>>,
}

struct Known {
    user: UserRef,
    /// When the auth service has returned the user.
    at: Instant,
    /// When the claims are sent again.
    // Locked for a comparison, never across an await.
    due: Mutex<Instant>,
}

impl Known {
    fn new(user: UserRef) -> Arc<Self> {
        let at = Instant::now();
        Arc::new(Self { user, at, due: Mutex::new(at + RENEW_EVERY) })
    }

    /// Whether the caller must renew the user now. `true` starts the pause before the next renewal.
    fn is_due(&self) -> bool {
        let (now, mut due) = (Instant::now(), self.due.lock());
        let is_due = now >= *due;
        if is_due {
            *due = now + RENEW_AGAIN;
        }
        is_due
    }
}

impl Users {
    pub fn new(auth: AuthServiceClient<Transport>) -> Self {
        Self { auth, creates: true, known: Cache::new(MAX_USERS) }
    }

    /// In a service, an account exists, because a gateway has verified the token before.
    pub fn in_service(auth: AuthServiceClient<Transport>) -> Self {
        Self { creates: false, ..Self::new(auth) }
    }

    /// Returns the user of a valid token. A known user needs no wait; the first token of a user waits for the auth
    /// service, which creates the account. All concurrent callers share one call.
    ///
    /// # Errors
    /// `unauthorized` for a suspended or deleted user; `unavailable` for an unknown user when the auth service does not
    /// answer.
    pub async fn of(&self, token: &ForeignToken) -> Result<UserRef> {
        match self.known.get(&token.user_id).await {
            Some(known) if known.at.elapsed() < KEEP => {
                if known.is_due() {
                    tokio::spawn(self.clone().renew(ask(token), token.user_id));
                }
                return Ok(known.user.clone());
            }
            Some(_) => self.known.invalidate(&token.user_id).await,
            None => {}
        }
        let ensured = self.known.try_get_with(token.user_id, async { self.ensure(ask(token)).await.map(Known::new) });
        let known = ensured.await.map_err(|error| Error::clone(&error))?;
        Ok(known.user.clone())
    }

    /// Sends the claims again. Requests do not wait for it: a username seldom changes.
    async fn renew(self, ask: EnsureUserRequest, user_id: Uuid) {
        match self.ensure(ask).await {
            Ok(user) => self.known.insert(user_id, Known::new(user)).await,
            Err(error) if error.code == Code::Unauthorized => self.known.invalidate(&user_id).await,
            Err(error) => tracing::debug!(%error, "cannot renew a user of the app's own issuer"),
        }
    }

    async fn ensure(&self, ask: EnsureUserRequest) -> Result<UserRef> {
        let mut auth = self.auth.clone();
        let user = if self.creates {
            auth.ensure_user(request(ask, ENSURE)).await
        } else {
            let get = GetUserRequest { id: ask.user_id, ..GetUserRequest::default() };
            auth.get_user(request(get, ENSURE)).await
        };
        let user = user.map_err(|status| failed(status.into()))?.into_inner();
        match user.state() {
            AccountState::Unspecified | AccountState::Active => Ok(UserRef { id: user.id, username: user.username }),
            // The list of revocations has an entry, which this gateway has not read yet.
            AccountState::Suspended | AccountState::Deleted => Err(super::refused()),
        }
    }
}

fn ask(token: &ForeignToken) -> EnsureUserRequest {
    EnsureUserRequest {
        user_id: token.user_id.to_string(),
        issuer: token.issuer.to_string(),
        name: token.name.clone().unwrap_or_default(),
        picture: token.picture.clone().unwrap_or_default(),
    }
}

/// The call may be repeated, so `unavailable` is right for an unknown outcome, too; also for an auth service of the
/// previous version, which does not have the method.
fn failed(error: Error) -> Error {
    match error.code {
        Code::InvalidRequest | Code::Conflict | Code::Internal => Error::internal(error),
        Code::NotFound => super::refused(),
        _ => Error::unavailable("the auth service").because(error),
    }
}

#[cfg(test)]
mod tests;

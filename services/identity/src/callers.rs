//! The users and server keys on whose behalf a service is called. Each credential is verified once: until it expires or
//! is revoked, the next call needs a look-up by its digest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock};
use std::task::{Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use confab_common::bus::Bus;
use confab_common::grpc::{Role, Services, Transport};
use confab_common::issuers::Issuers;
use confab_common::process::Process;
use confab_common::standstill;
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::message::v1 as message;
use confab_proto::server_key::{Scopes, id_of};
use futures::FutureExt;
use futures::future::BoxFuture;
use moka::sync::Cache;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::acting::ActingUsers;
use crate::background::{self, Background};
use crate::config::CallersConfig;
use crate::credential::{Credential, Digest, Given, credential_of, digest_of};
use crate::metrics::CREDENTIALS;
use crate::revocations::Revocations;
use crate::server_keys::ServerKeys;
use crate::tokens::{Identity, Tokens, refused};

/// Most verified credentials that a process remembers; each takes about 400 bytes.
const CAPACITY: u64 = 100_000;
/// How long a credential is remembered that no call names.
const IDLE: Duration = Duration::from_secs(3600);

/// The user or the server key that a credential proves.
#[derive(Debug)]
pub enum Verified {
    User(Identity),
    Key { id: Uuid, scopes: Scopes, user: Option<UserRef> },
}

impl Verified {
    /// The user; `None` for a server key alone.
    pub fn user(&self) -> Option<&UserRef> {
        match self {
            Self::User(identity) => Some(&identity.user),
            Self::Key { user, .. } => user.as_ref(),
        }
    }
}

/// The user or the server key of a credential, or why it is not valid; `None` for an unknown digest.
pub type Found = Option<Result<Arc<Verified>>>;

/// Verifies credentials; clones share what is known.
#[derive(Clone)]
pub struct Callers(Arc<Inner>);

struct Inner {
    tokens: Tokens,
    keys: ServerKeys,
    users: ActingUsers,
    known: Cache<Digest, Known>,
    background: Background<Found>,
    is_required: bool,
    _pauses: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum Known {
    Token(Arc<Verified>),
    /// A key may be deleted at any time, so auth is asked again every few seconds.
    Key {
        id: Uuid,
        sha256: [u8; 32],
        user: Option<Uuid>,
    },
}

impl Callers {
    /// Starts to follow the keys and the list of revocations of this auth service, for a service with this role. Without
    /// a bus, a revocation takes effect up to 1 s later.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn start(
        config: &CallersConfig,
        role: Role,
        auth: Transport,
        bus: Option<&Bus>,
        process: &Process,
    ) -> anyhow::Result<Self> {
        Self::with_capacity(CAPACITY, config, role, auth, (bus, process))
    }

    fn with_capacity(
        capacity: u64,
        config: &CallersConfig,
        role: Role,
        auth: Transport,
        (bus, process): (Option<&Bus>, &Process),
    ) -> anyhow::Result<Self> {
        LazyLock::force(&CREDENTIALS);
        let auth = AuthServiceClient::new(Services { auth, ..Services::none() }.called_by(role).auth);
        let revocations = Revocations::in_service(auth.clone(), bus);
        let users = ActingUsers::new(auth.clone(), revocations.clone());
        let issuers = Issuers::start(&config.issuers, process)?;
        let tokens = Tokens::in_service(issuers, auth.clone(), revocations.clone(), &process.readiness);
        let known = Cache::builder().max_capacity(capacity).time_to_idle(IDLE).build();
        let pauses = revocations.pauses().clone();
        // After a pause of the process, no token is accepted until the list of revocations has been read again.
        let caught_up = move || {
            let revocations = revocations.clone();
            async move { revocations.catch_up().await.is_ok() }
        };
        let pauses = AbortOnDropHandle::new(tokio::spawn(standstill::watch(pauses, caught_up)));
        let (keys, is_required) = (ServerKeys::new(auth), config.require_user_tokens);
        let background = Background::new(background::CAPACITY);
        Ok(Self(Arc::new(Inner { tokens, keys, users, known, background, is_required, _pauses: pauses })))
    }

    /// Whether a call on behalf of a user needs a credential.
    pub fn is_required(&self) -> bool {
        self.0.is_required
    }

    /// Whether tokens of auth can be verified. Until then, other replicas may know more.
    pub fn is_ready(&self) -> bool {
        self.0.tokens.is_ready()
    }

    /// Verifies a credential; `None` without one.
    ///
    /// # Errors
    /// `unauthorized` for a token or a key that is not valid; `forbidden` for a suspended user of a key; `unavailable`
    /// when auth or an issuer is needed and does not answer.
    pub async fn verify(&self, credential: &Credential) -> Result<Option<Arc<Verified>>> {
        let (Some(given), Some(name)) = (credential.given(), credential.digest()) else { return Ok(None) };
        if let Some(known) = self.known(&name).await {
            return known.map(Some);
        }
        let verified = match given {
            Given::Token(token) => self.verify_token(name, token.to_str().map_err(|_| refused())?).await,
            Given::Key { key, user } => self.verify_key(name, key.to_str().map_err(|_| refused())?, *user).await,
        };
        self.counted(verified, true).map(Some)
    }

    /// The credentials of one request with many: those `given` with it, which are verified, and those that it names by
    /// their digests.
    ///
    /// One slow credential must not delay the others: after 400 ms, a credential whose verification needs an answer of
    /// auth or an issuer has the error `unavailable`. The verification goes on, so that a repeat finds its outcome. A
    /// known token of a user who is not blocked needs neither a wait nor a timer.
    pub async fn find_all(&self, given: &[message::Credential], names: Vec<Digest>) -> HashMap<Digest, Found> {
        let (mut all, mut late) = (HashMap::new(), Vec::<(Digest, BoxFuture<'static, Found>)>::new());
        for given in given {
            let credential = credential_of(given);
            let name = credential.as_ref().ok().and_then(Credential::digest).unwrap_or_else(|| digest_of(given));
            if let Entry::Vacant(vacant) = all.entry(name) {
                vacant.insert(match (self.known_now(&name), credential) {
                    (Poll::Ready(Some(known)), _) => Some(known),
                    (_, Err(malformed)) => Some(Err(malformed)),
                    (_, Ok(credential)) => {
                        let callers = self.clone();
                        let verify = async move { callers.verify(&credential).await.transpose() };
                        late.push((name, verify.boxed()));
                        Some(Err(unverified()))
                    }
                });
            }
        }
        for name in names {
            if let Entry::Vacant(vacant) = all.entry(name) {
                vacant.insert(match self.known_now(&name) {
                    Poll::Ready(known) => known,
                    Poll::Pending => {
                        let callers = self.clone();
                        late.push((name, async move { callers.known(&name).await }.boxed()));
                        Some(Err(unverified()))
                    }
                });
            }
        }
        if !late.is_empty() {
            let count = late.len();
            let verified = self.0.background.run(late).await;
            CREDENTIALS.late.increment((count - verified.len()) as u64);
            all.extend(verified.into_iter().map(|(name, found)| (name, found.map(decided))));
        }
        all
    }

    /// The user or the key of a credential that was verified before; `None` for an unknown digest.
    ///
    /// # Errors
    /// As [`verify`](Self::verify): the credential may have ended.
    pub async fn known(&self, name: &Digest) -> Found {
        if let Poll::Ready(known) = self.known_now(name) {
            return known;
        }
        let verified = match self.0.known.get(name)? {
            Known::Token(verified) => match &*verified {
                Verified::User(identity) => self.0.tokens.check_again(identity).await.map(|()| verified),
                Verified::Key { .. } => Err(refused()),
            },
            Known::Key { id, sha256, user } => self.find_key(id, &sha256, user).await,
        };
        Some(self.checked(name, verified))
    }

    /// As [`known`](Self::known), for a token that can be checked without an answer of auth.
    fn known_now(&self, name: &Digest) -> Poll<Found> {
        let Some(known) = self.0.known.get(name) else { return Poll::Ready(None) };
        let Known::Token(verified) = known else { return Poll::Pending };
        let Verified::User(identity) = &*verified else { return Poll::Pending };
        let valid = ready!(self.0.tokens.check_now(identity));
        Poll::Ready(Some(self.checked(name, valid.map(|()| verified))))
    }

    /// Forgets a credential that has ended.
    fn checked(&self, name: &Digest, verified: Result<Arc<Verified>>) -> Result<Arc<Verified>> {
        if verified.as_ref().is_err_and(|error| error.code == Code::Unauthorized) {
            self.0.known.invalidate(name);
        }
        self.counted(verified, false)
    }

    async fn verify_token(&self, name: Digest, token: &str) -> Result<Arc<Verified>> {
        let identity = self.0.tokens.verify(token).await?;
        // The cache does not need the text of the token.
        let verified = Arc::new(Verified::User(Identity { credential: Credential::default(), ..identity }));
        self.0.known.insert(name, Known::Token(verified.clone()));
        Ok(verified)
    }

    async fn verify_key(&self, name: Digest, key: &str, user: Option<Uuid>) -> Result<Arc<Verified>> {
        let id = id_of(key).ok_or_else(refused)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        let verified = self.find_key(id, &sha256, user).await?;
        self.0.known.insert(name, Known::Key { id, sha256, user });
        Ok(verified)
    }

    async fn find_key(&self, id: Uuid, sha256: &[u8], user: Option<Uuid>) -> Result<Arc<Verified>> {
        let key = self.0.keys.find(id).await?.filter(|key| key.has(sha256)).ok_or_else(refused)?;
        let user = match user {
            Some(user) => Some(self.0.users.find(user).await.map_err(|error| match error.code {
                Code::NotFound => refused(),
                _ => error,
            })?),
            None => None,
        };
        Ok(Arc::new(Verified::Key { id, scopes: key.scopes, user }))
    }

    fn counted(&self, verified: Result<Arc<Verified>>, is_new: bool) -> Result<Arc<Verified>> {
        let counter = match &verified {
            Ok(_) if is_new => &CREDENTIALS.verified,
            Ok(_) => &CREDENTIALS.known,
            Err(_) => &CREDENTIALS.refused,
        };
        counter.increment(1);
        verified
    }
}

/// Counts events and reads whose credential the service does not know.
pub fn count_unknown(count: usize) {
    CREDENTIALS.unknown.increment(count as u64);
}

/// The error for a call on behalf of a user without a credential.
pub fn missing() -> Error {
    Error::new(Code::Unauthorized, "a call on behalf of a user needs the user's token or a server key")
}

/// The error for a call whose credential belongs to another user or key, or does not suffice.
pub fn foreign() -> Error {
    Error::new(Code::Forbidden, "the credential of the call belongs to another user or server key")
}

/// The outcome of a verification in a request of many users: one that was not decided fails alone.
fn decided(found: Result<Arc<Verified>>) -> Result<Arc<Verified>> {
    found.map_err(|error| match error.code {
        Code::Unauthorized | Code::Forbidden => error,
        _ => unverified().because(error),
    })
}

fn unverified() -> Error {
    Error::unavailable("the verification of the credential")
}

#[cfg(test)]
mod tests;

//! Verifies tokens: those of auth, with the public keys that auth publishes, and those of the app's own issuers.

mod keys;
mod users;

use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use confab_common::grpc::{Call, Transport, request};
use confab_common::issuers::{ForeignToken, Issuers};
use confab_common::readiness::{Condition, Readiness};
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{GetJwksRequest, UserRef};
use http::HeaderValue;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, get_current_timestamp};
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::credential::Credential;
use crate::metrics::METRICS;
use crate::revocations::Revocations;
use crate::sign_in::SignIn;
use confab_common::seldom::Seldom;
use keys::Keys;
use users::Users;

pub use crate::credential::MAX_TOKEN;

/// Tolerated difference between the clocks of auth and this machine, in seconds.
const LEEWAY: u64 = 5;
/// The issuer and the audience of the tokens that auth issues.
const PARTY: &str = "confab";

const FETCH: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));
const FETCH_EVERY: Duration = Duration::from_secs(60);
/// Pause between two attempts to fetch the first key set.
const FETCH_FIRST: Duration = Duration::from_millis(250);
/// Tokens with an unknown key id cause at most one fetch in this time.
const FETCH_UNKNOWN: Duration = Duration::from_secs(1);
/// The user and the sign-in of a token.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user_id: Uuid,
    /// The user in the form that the gRPC contract expects.
    pub user: UserRef,
    /// The id of the sign-in: the token's `jti`; for a token of the app's own issuer, its revocation id.
    pub session_id: Uuid,
    /// The token's time of issue, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// The token's expiry, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// The credential for calls on behalf of the user.
    pub credential: Credential,
}

impl Identity {
    /// The sign-in of the token.
    pub fn sign_in(&self) -> SignIn {
        SignIn { session_id: self.session_id, issued_at: self.issued_at, expires_at: self.expires_at }
    }

    /// Whether the user belongs to one of the app's own issuers: only the ids of such users are UUIDv5.
    pub fn is_of_issuer(&self) -> bool {
        self.user_id.get_version_num() == 5
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    name: String,
    jti: Uuid,
    // Integers only: the library would also accept fractions.
    exp: i64,
    nbf: i64,
    iat: i64,
}

/// Whether a header value begins with the scheme `Bearer` (RFC 6750).
pub fn is_bearer(value: &[u8]) -> bool {
    value.get(.."bearer ".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// The token in an `Authorization` header with the scheme `Bearer`.
pub fn bearer(header: &HeaderValue) -> Option<&str> {
    let value = Some(header).filter(|header| is_bearer(header.as_bytes()))?.to_str().ok()?;
    Some(value["bearer ".len()..].trim())
}

/// Logs tokens that are not valid yet: the clock of this machine is behind auth's clock.
#[derive(Default)]
struct Early(Seldom);

impl Early {
    fn note(&self, token: &str) {
        METRICS.early_tokens.increment(1);
        if self.0.is_due()
            && let Ok(claims) = insecure_decode_claims::<Claims>(token)
        {
            let seconds = claims.nbf.saturating_sub_unsigned(get_current_timestamp());
            tracing::warn!(
                seconds,
                "a token is rejected because it is not valid yet: the clock of this machine is behind auth's clock"
            );
        }
    }
}

/// Verifies tokens; clones share the key set.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    auth: AuthServiceClient<Transport>,
    issuers: Issuers,
    users: Users,
    revocations: Revocations,
    validation: Validation,
    early: Early,
    // The lock is held to copy the pointer, never across an await.
    keys: RwLock<Option<Arc<Keys>>>,
    /// The last attempt to fetch keys. Locked during a fetch, so that there is one attempt at a time.
    attempt: tokio::sync::Mutex<Option<Attempt>>,
}

struct Attempt {
    at: Instant,
    failed: Option<Error>,
}

impl Tokens {
    /// Starts without issuers of the app.
    #[cfg(any(test, feature = "testing"))]
    pub fn start(
        auth: AuthServiceClient<Transport>,
        revocations: Revocations,
        process: &confab_common::process::Process,
    ) -> Self {
        Self::with_issuers(Issuers::default(), auth, revocations, &process.readiness)
    }

    /// Starts fetching the key set of auth, now and every minute. The process is not ready until the first key set has
    /// arrived. Tokens of these issuers are accepted, too; the first token of a user creates the account.
    pub fn with_issuers(
        issuers: Issuers,
        auth: AuthServiceClient<Transport>,
        revocations: Revocations,
        readiness: &Readiness,
    ) -> Self {
        let users = Users::new(auth.clone());
        let loaded = readiness.condition("signing keys");
        Self::new(issuers, auth, revocations, users, (readiness.clone(), Some(loaded)))
    }

    /// As [`with_issuers`](Self::with_issuers), in a service: it creates no account, and the process is ready without
    /// keys, because calls of other services need none.
    pub fn in_service(
        issuers: Issuers,
        auth: AuthServiceClient<Transport>,
        revocations: Revocations,
        readiness: &Readiness,
    ) -> Self {
        let users = Users::in_service(auth.clone());
        Self::new(issuers, auth, revocations, users, (readiness.clone(), None))
    }

    fn new(
        issuers: Issuers,
        auth: AuthServiceClient<Transport>,
        revocations: Revocations,
        users: Users,
        (readiness, loaded): (Readiness, Option<Condition>),
    ) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[PARTY]);
        validation.set_audience(&[PARTY]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        let tokens = Self(Arc::new(Inner {
            users,
            auth,
            issuers,
            revocations,
            validation,
            early: Early::default(),
            keys: RwLock::default(),
            attempt: tokio::sync::Mutex::default(),
        }));
        tokio::spawn(keep_fetching(Arc::downgrade(&tokens.0), readiness, loaded));
        tokens
    }

    /// Verifies a token. With known keys, and for a token of an issuer a known user, the answer needs no wait.
    ///
    /// # Errors
    /// `unauthorized` for a token that is malformed, forged, for another audience, expired, not valid yet or revoked;
    /// `unavailable` when keys, revocations or the user are needed from auth or the issuer, which does not answer.
    pub async fn verify(&self, token: &str) -> Result<Identity> {
        if token.len() > MAX_TOKEN {
            return Err(refused());
        }
        let identity = match self.0.issuers.verify(token).await? {
            Some(token) => self.identify(&token).await,
            None => self.verify_own(token).await,
        }?;
        Ok(Identity { credential: Credential::of_token(token), ..identity })
    }

    /// Whether tokens of auth can be verified: auth has answered since the process started, and since its last pause.
    pub fn is_ready(&self) -> bool {
        self.keys().is_some() && self.0.revocations.is_known()
    }

    /// Checks that a token that was valid before has neither expired nor been revoked.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub async fn check_again(&self, identity: &Identity) -> Result<()> {
        match self.check_now(identity) {
            Poll::Ready(checked) => checked,
            Poll::Pending => self.check_revocations(identity.user_id, identity.sign_in()).await,
        }
    }

    /// As [`check_again`](Self::check_again); pending if the list of revocations must be read first.
    ///
    /// # Errors
    /// `unauthorized` for a token that has ended.
    pub fn check_now(&self, identity: &Identity) -> Poll<Result<()>> {
        let now = i64::try_from(get_current_timestamp()).unwrap_or(i64::MAX);
        if identity.expires_at.saturating_add_unsigned(LEEWAY) < now {
            return Poll::Ready(Err(refused()));
        }
        let revocations = &self.0.revocations;
        if !revocations.is_known() || revocations.block(identity.user_id).is_some() {
            return Poll::Pending;
        }
        Poll::Ready(self.check_cause(identity.user_id, identity.sign_in()))
    }

    /// Verifies a token of auth.
    async fn verify_own(&self, token: &str) -> Result<Identity> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        let key_id =
            header.kid.filter(|_| header.alg == Algorithm::EdDSA && header.crit.is_none()).ok_or_else(refused)?;
        let keys = self.keys_with(&key_id).await?;
        let key = keys.by_id.get(&key_id).ok_or_else(refused)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verifies, &self.0.validation).map(|token| token.claims);
        let claims = claims.map_err(|error| {
            // The signature is valid.
            if *error.kind() == ErrorKind::ImmatureSignature {
                self.0.early.note(token);
            }
            refused()
        })?;
        let Claims { sub: user_id, name: username, jti: session_id, iat: issued_at, exp: expires_at, .. } = claims;
        self.check_revocations(user_id, SignIn { session_id, issued_at, expires_at }).await?;
        let user = UserRef { id: user_id.to_string(), username };
        Ok(Identity { user_id, user, session_id, issued_at, expires_at, credential: Credential::default() })
    }

    /// The identity of a verified token of the app's own issuer.
    async fn identify(&self, token: &ForeignToken) -> Result<Identity> {
        let ForeignToken { user_id, revocation_id: session_id, issued_at, expires_at, .. } = *token;
        self.check_revocations(user_id, SignIn { session_id, issued_at, expires_at }).await?;
        let user = self.0.users.of(token).await?;
        Ok(Identity { user_id, user, session_id, issued_at, expires_at, credential: Credential::default() })
    }

    async fn check_revocations(&self, user_id: Uuid, sign_in: SignIn) -> Result<()> {
        self.0.revocations.known().await?;
        if self.0.revocations.block_now(user_id).await.is_some() {
            return Err(refused());
        }
        self.check_cause(user_id, sign_in)
    }

    fn check_cause(&self, user_id: Uuid, sign_in: SignIn) -> Result<()> {
        if self.0.revocations.cause(user_id, sign_in).is_some() { Err(refused()) } else { Ok(()) }
    }

    /// [`verify`](Self::verify) for a connection, which ends with its token: an expired token is rejected without
    /// leeway for clocks.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub async fn verify_to_stay(&self, token: &str) -> Result<Identity> {
        let identity = self.verify(token).await?;
        if identity.sign_in().left().is_zero() { Err(refused()) } else { Ok(identity) }
    }

    /// The keys that auth publishes, and those that it published recently, as a JSON Web Key Set.
    ///
    /// # Errors
    /// `unavailable` when auth has not answered since the process started.
    pub async fn jwks(&self) -> Result<Bytes> {
        if self.keys().is_none() {
            self.fetch_unless_recent(|_| false).await?;
        }
        self.keys().map(|keys| keys.json.clone()).ok_or_else(|| Error::unavailable("the key set"))
    }

    fn keys(&self) -> Option<Arc<Keys>> {
        self.0.keys.read().clone()
    }

    /// The key set. It is fetched again when it does not contain this key id.
    async fn keys_with(&self, id: &str) -> Result<Arc<Keys>> {
        let has = |keys: &Keys| keys.by_id.contains_key(id);
        if let Some(keys) = self.keys().filter(|keys| has(keys)) {
            return Ok(keys);
        }
        self.fetch_unless_recent(has).await?;
        self.keys().ok_or_else(|| Error::unavailable("the key set"))
    }

    /// Fetches the key set, unless an attempt was made recently or another task has meanwhile fetched a set that
    /// satisfies the caller.
    async fn fetch_unless_recent(&self, satisfied: impl Fn(&Keys) -> bool) -> Result<()> {
        let mut attempt = self.0.attempt.lock().await;
        if self.keys().is_some_and(|keys| satisfied(&keys)) {
            return Ok(());
        }
        match &*attempt {
            Some(attempt) if attempt.at.elapsed() < FETCH_UNKNOWN => attempt.failed.clone().map_or(Ok(()), Err),
            _ => self.fetch(&mut attempt).await,
        }
    }

    async fn fetch(&self, attempt: &mut Option<Attempt>) -> Result<()> {
        let fetched = self.0.auth.clone().get_jwks(request(GetJwksRequest {}, FETCH)).await;
        let fetched =
            fetched.map_err(Error::from).and_then(|jwks| Keys::parse(jwks.into_inner().json, self.keys().as_deref()));
        *attempt = Some(Attempt { at: Instant::now(), failed: fetched.as_ref().err().cloned() });
        // When auth does not answer, the last key set stays in use.
        *self.0.keys.write() = Some(Arc::new(fetched?));
        Ok(())
    }
}

/// One text for all reasons, so that an attacker learns nothing from it.
pub fn refused() -> Error {
    Error::new(Code::Unauthorized, "the token is not valid")
}

/// Fetches the key set at intervals until all clones of the tokens are dropped.
async fn keep_fetching(tokens: Weak<Inner>, readiness: Readiness, loaded: Option<Condition>) {
    while let Some(tokens) = tokens.upgrade().map(Tokens) {
        let fetched = tokens.fetch(&mut *tokens.0.attempt.lock().await).await;
        let pause = match fetched {
            Ok(()) => {
                loaded.iter().for_each(|loaded| loaded.set(true));
                readiness.note("auth", None);
                FETCH_EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "cannot fetch the signing keys");
                if tokens.keys().is_some() {
                    FETCH_EVERY
                } else {
                    readiness.note("auth", Some(format!("cannot fetch its keys (CONFAB_AUTH_URL): {error}")));
                    FETCH_FIRST
                }
            }
        };
        drop(tokens);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
#[path = "tokens/tests.rs"]
mod tests;

//! Tokens of the app's own issuers: `CONFAB_ISSUERS`. A program verifies such a token itself, with keys that it fetches
//! from the issuer in advance; a request needs no call to the issuer.
//!
//! An attacker can send any number of tokens. They change nothing but counters: keys come only from the issuer, and
//! tokens with unknown keys cause at most one fetch in 30 s for each issuer.
//!
//! `jsonwebtoken` verifies Confab's own tokens, but not these:
//! * The claims name the issuer, which decides about the keys, the algorithms and the names of the other claims. The
//!   library would parse head and claims several times; here they are parsed once.
//! * The library takes one of two claims with the same name, if the name is a setting. Another parser may take the
//!   other one, so such tokens are rejected here.
//! * The library parses a key with each signature. Here a key is parsed when it arrives, so an unusable key in a file
//!   prevents the start, and a verification takes at most 40 µs. The signatures themselves are those of aws-lc-rs.

mod algorithm;
mod claims;
mod config;
mod fetch;
mod ids;
mod jwk;
mod keeper;
mod key;
mod keys;
mod metrics;
mod picture;
mod source;
mod token;

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::claims::Claims;
use self::config::Entry;
use self::fetch::Fetcher;
use self::keeper::Keeper;
use self::metrics::METRICS;
use self::token::{Head, Object, Parts, Reason};
use crate::process::Process;
use crate::{Code, Error, Result, clock};

pub use config::IssuersConfig;
pub use ids::user_id;
pub use picture::is_picture_url;

/// What a valid token of the app's own issuer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignToken {
    /// The issuer, as its `iss` claim and `CONFAB_ISSUERS` name it.
    pub issuer: Arc<str>,
    /// The user: a UUIDv5, computed from the issuer and the user claim.
    pub user_id: Uuid,
    /// The claim that `nameClaim` names, if the token has it as a text that is not empty.
    pub name: Option<String>,
    /// The claim that `pictureClaim` names, if the token has it as a text that is not empty.
    pub picture: Option<String>,
    /// The token's `iat`, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// The token's `exp`, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// The id under which a logout revokes the token: a UUIDv5, which never equals the UUIDv7 of a sign-in at Confab.
    /// Tokens of one issuer with the same `jti` have the same id. Without a `jti`, the id is computed from the
    /// SHA-256 of the token without its signature: an ECDSA signature has a second valid form, so a hash of the whole
    /// token would let its owner undo the logout.
    pub revocation_id: Uuid,
}

/// Verifies tokens of the app's own issuers; clones share the keys. The default has no issuers.
#[derive(Clone, Default)]
pub struct Issuers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    issuers: Vec<Issuer>,
    /// The tasks that renew the keys. They end when the last clone is dropped.
    _renewals: Vec<AbortOnDropHandle<()>>,
}

struct Issuer {
    entry: Arc<Entry>,
    ids: ids::Namespaces,
    keeper: Arc<Keeper>,
}

/// Why a token is not accepted.
enum Failure {
    Rejected(Reason),
    NoKeys,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason)
    }
}

impl Issuers {
    /// Reads the key files, and starts to fetch the keys of the other issuers. An issuer that does not answer does not
    /// make the process unready, because the tokens of other issuers are valid without it.
    ///
    /// # Errors
    /// When the setting is wrong, or a key file cannot be used.
    pub fn start(config: &IssuersConfig, process: &Process) -> anyhow::Result<Self> {
        metrics::register();
        let entries = config.entries()?;
        let fetcher = if entries.iter().any(Entry::is_fetched) { Some(Fetcher::new()?) } else { None };
        let (mut issuers, mut renewals) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = Arc::new(entry);
            let (keeper, renewal) = Keeper::start(entry.clone(), fetcher.clone(), process.readiness.clone())?;
            renewals.push(renewal);
            issuers.push(Issuer { ids: ids::Namespaces::of(&entry.issuer), entry, keeper });
        }
        Ok(Self(Arc::new(Inner { issuers, _renewals: renewals })))
    }

    /// Returns whether there are no issuers.
    pub fn is_empty(&self) -> bool {
        self.0.issuers.is_empty()
    }

    /// Verifies a token. Returns `None` if its issuer is none of these: the token may be one of Confab's own.
    ///
    /// With a known key, the answer needs no wait. A token with an unknown key waits for at most one fetch of 5 s.
    ///
    /// # Errors
    /// `unauthorized` for a token that is malformed, forged, for another audience, expired, not valid yet or valid for
    /// too long; `unavailable` when the keys of its issuer have never been fetched.
    pub async fn verify(&self, token: &str) -> Result<Option<ForeignToken>> {
        if self.is_empty() {
            return Ok(None);
        }
        self.check(token, clock::now_ms() / 1000).await.map_err(|failure| match failure {
            Failure::Rejected(reason) => {
                METRICS.rejected.increment(1);
                tracing::debug!(reason, "a token is rejected");
                // One text for all reasons, so that an attacker learns nothing from it.
                Error::new(Code::Unauthorized, "the token is not valid")
            }
            Failure::NoKeys => Error::unavailable("the key set of the token's issuer"),
        })
    }

    async fn check(&self, token: &str, now: i64) -> Result<Option<ForeignToken>, Failure> {
        let parts = Parts::split(token)?;
        // Before the signature, so that an expired token causes no fetch of keys.
        let Some((issuer, claims)) = self.check_claims(&parts, now)? else { return Ok(None) };
        let head = parts.head()?;
        let head = Head::check(&Object::parse(&head)?, &issuer.entry.algorithms)?;
        issuer.check_signature(&head, parts.signed, &parts.signature()?).await?;
        Ok(Some(issuer.identify(claims, parts.signed)))
    }

    /// Returns the issuer that the token names, and the claims. The decoded payload, which can need 100 KiB, is freed
    /// before the token waits for keys.
    fn check_claims(&self, parts: &Parts<'_>, now: i64) -> Result<Option<(&Issuer, Claims)>, Reason> {
        let payload = parts.payload()?;
        let claims = Object::parse(&payload)?;
        let Some(name) = claims.text("iss")? else { return Ok(None) };
        let Some(issuer) = self.0.issuers.iter().find(|issuer| *issuer.entry.issuer == *name) else { return Ok(None) };
        Ok(Some((issuer, Claims::check(&claims, &issuer.entry, now)?)))
    }
}

impl Issuer {
    async fn check_signature(&self, head: &Head<'_>, signed: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let keys = self.keeper.keys();
        let known = keys.as_ref().map(|keys| keys.verify(head, signed, signature));
        if let Some(Ok(())) = known {
            return Ok(());
        }
        // The issuer may have new keys, or a new key under a known id.
        match (self.keeper.newer_than(keys.as_ref()).await, known) {
            (Some(newer), _) => newer.verify(head, signed, signature).map_err(Failure::Rejected),
            (None, Some(known)) => known.map_err(Failure::Rejected),
            (None, None) => Err(Failure::NoKeys),
        }
    }

    fn identify(&self, claims: Claims, signed: &[u8]) -> ForeignToken {
        ForeignToken {
            issuer: self.entry.issuer.clone(),
            user_id: self.ids.user(&claims.user),
            revocation_id: match &claims.id {
                Some(id) => self.ids.revocation(id),
                None => self.ids.revocation_of(signed),
            },
            name: claims.name,
            picture: claims.picture,
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
        }
    }
}

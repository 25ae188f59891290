//! The limits of one HTTP request. Every response states the limits that the request was charged for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use confab_common::limit::{Bucket, Decision, Rule, similar};
use confab_common::{Code, Error, Result};
use confab_socketio::net::ClientAddress;
use parking_lot::Mutex;

use super::act::Act;
use super::decide::{Limits, Subject};
use super::quota::Quota;
use crate::problem::Problem;

/// A record of a correct password for an account from an address. A success takes a unit, so a bucket that is not full
/// had one within the last 7 days, and one with a success each week is never full.
const KNOWN: Rule = Rule { name: "known_address", burst: 2, per: Duration::from_secs(7 * 24 * 3600) };

/// The rate limits, for the handler of a request. An extractor; a limit that a handler checks appears in the headers of
/// its response, whether that is a success or an error.
#[derive(Clone)]
pub struct RequestLimits {
    limits: Arc<Limits>,
    // Locked to add or to read, never across an await.
    applied: Arc<Mutex<Applied>>,
}

/// What the limits decided about a request.
#[derive(Default)]
struct Applied {
    quotas: Vec<Quota>,
    /// Whether they rejected it, and the rejection is delayed.
    is_late: bool,
}

impl<S: Sync> FromRequestParts<S> for RequestLimits {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let limits = parts.extensions.get().cloned();
        limits.ok_or_else(|| Problem(Error::internal("the route is outside of the middleware of the rate limits")))
    }
}

/// Middleware: lets handlers use [`RequestLimits`], adds the headers to their responses, and delays the rejections of
/// some acts. A delayed rejection does not hold the body of its request, because the handler has ended.
pub async fn apply(
    State(limits): State<Arc<Limits>>,
    address: ClientAddress,
    mut request: Request,
    next: Next,
) -> Response {
    let applied = Arc::<Mutex<Applied>>::default();
    request.extensions_mut().insert(RequestLimits { limits: limits.clone(), applied: applied.clone() });
    let mut response = next.run(request).await;
    let Applied { quotas, is_late } = std::mem::take(&mut *applied.lock());
    quotas.iter().for_each(|quota| quota.add_to(response.headers_mut()));
    if is_late {
        limits.late.delay(address, &mut response).await;
    }
    response
}

impl RequestLimits {
    /// Charges a rare act, exactly over all gateways. Waits for Redis, at most 30 ms.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn check(&self, act: Act, subject: impl Into<Subject>) -> Result<()> {
        self.apply(self.limits.decide(act, subject).await)
    }

    /// Charges a frequent act without waiting.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self, act: Act, subject: impl Into<Subject>) -> Result<()> {
        self.apply(self.limits.decide_now(act, subject))
    }

    /// Begins a login; must precede the check of the password.
    ///
    /// # Errors
    /// `rate_limited` after too many wrong passwords for this account from this address; also after too many from all
    /// addresses, unless the user has recently logged in from this address; also after too many logins to this account.
    pub async fn attempt(&self, username: &str, address: ClientAddress) -> Result<Attempt> {
        let mut attempt = self.confirmation(username, address).await?;
        attempt.logins = self.limits.bucket(Act::AccountLogin, &[similar(username).as_bytes()]);
        self.reject_beyond(Act::AccountLogin, attempt.logins.as_ref()).await?;
        if let Some(account) = &attempt.account {
            let decision = account.wrong.peek().await;
            if !decision.is_allowed() && !account.is_known().await {
                self.apply(Some(Limits::quota(Act::AccountPassword, &account.wrong, decision)))?;
            }
        }
        Ok(attempt)
    }

    /// Begins an attempt of a user who is logged in, and confirms something with the password; must precede the check of
    /// the password.
    ///
    /// # Errors
    /// `rate_limited` after too many wrong passwords for this account from this address.
    pub async fn confirmation(&self, username: &str, address: ClientAddress) -> Result<Attempt> {
        let (name, address) = (similar(username), address.to_string());
        let parts = [name.as_bytes(), address.as_bytes()];
        let bucket = self.limits.bucket(Act::WrongPassword, &parts);
        if let Some(bucket) = &bucket {
            self.apply(Some(Limits::quota(Act::WrongPassword, bucket, bucket.peek().await)))?;
        }
        let wrong = self.limits.bucket(Act::AccountPassword, &parts[..1]);
        let account = wrong.map(|wrong| Account { wrong, known: self.limits.bucket_under(KNOWN, &parts) });
        Ok(Attempt { act: Act::WrongPassword, bucket, account, logins: None, limits: self.clone() })
    }

    /// Begins an attempt to guess a server key; must precede the look-up of the key. A wrong key counts as a login from
    /// the address, a correct one counts for nothing.
    ///
    /// # Errors
    /// `rate_limited` after too many logins and wrong keys from this address.
    pub async fn key_attempt(&self, address: ClientAddress) -> Result<Attempt> {
        self.guess(Act::Login, address).await
    }

    /// Begins an attempt to guess a token for a password reset; must precede the look-up of the token. A correct token
    /// counts for nothing.
    ///
    /// # Errors
    /// `rate_limited` after too many wrong tokens from this address.
    pub async fn token_attempt(&self, address: ClientAddress) -> Result<Attempt> {
        self.guess(Act::WrongToken, address).await
    }

    /// Begins an attempt to guess a secret, of which only a wrong one counts, as this act.
    async fn guess(&self, act: Act, address: ClientAddress) -> Result<Attempt> {
        let bucket = self.limits.bucket_of(act, address.into());
        self.reject_beyond(act, bucket.as_ref()).await?;
        Ok(Attempt { act, bucket, account: None, logins: None, limits: self.clone() })
    }

    /// Rejects what is beyond a limit that only outcomes charge. The response states the limit only then.
    async fn reject_beyond(&self, act: Act, bucket: Option<&Bucket>) -> Result<()> {
        let Some(bucket) = bucket else { return Ok(()) };
        let decision = bucket.peek().await;
        if decision.is_allowed() { Ok(()) } else { self.apply(Some(Limits::quota(act, bucket, decision))) }
    }

    fn apply(&self, quota: Option<Quota>) -> Result<()> {
        let Some(quota) = quota else { return Ok(()) };
        self.state(quota);
        let admitted = quota.admit();
        if admitted.is_err() && quota.act.is_rejected_late() {
            self.applied.lock().is_late = true;
        }
        admitted
    }

    /// The response states each limit once, as it is at the end.
    fn state(&self, quota: Quota) {
        let mut applied = self.applied.lock();
        applied.quotas.retain(|earlier| earlier.act != quota.act);
        applied.quotas.push(quota);
    }
}

/// The buckets of an account that hold for all addresses together, and its record of one address.
struct Account {
    wrong: Bucket,
    known: Bucket,
}

impl Account {
    /// Whether the user has logged in from the address within the last 7 days.
    async fn is_known(&self) -> bool {
        match self.known.peek().await {
            Decision::Allowed { remaining, .. } => remaining < KNOWN.burst,
            Decision::Limited { .. } => true,
        }
    }
}

/// An attempt with a password, a token or a server key that is not checked yet. Dropped without a result, for example
/// when the auth service is unavailable, it counts for nothing.
#[must_use = "a wrong password, token or key counts only if this is reported"]
pub struct Attempt {
    act: Act,
    bucket: Option<Bucket>,
    /// For passwords, if the limit over all addresses is on.
    account: Option<Account>,
    /// For logins, of which only those with the correct password count: the limit of the account.
    logins: Option<Bucket>,
    limits: RequestLimits,
}

impl Attempt {
    /// Reports the outcome of a call that checks the secret: it was wrong if the call failed with this code.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn judged<T>(self, outcome: Result<T, impl Into<Error>>, wrong: Code) -> Result<T> {
        match outcome.map_err(Into::into) {
            Ok(answer) => {
                self.succeeded().await;
                Ok(answer)
            }
            Err(error) => {
                if error.code == wrong {
                    self.failed().await;
                }
                Err(error)
            }
        }
    }

    /// The password, the token or the key was wrong.
    pub async fn failed(self) {
        if let Some(bucket) = &self.bucket {
            let decision = bucket.penalize(1).await;
            self.limits.state(Quota { act: self.act, rule: *bucket.rule(), decision });
        }
        if let Some(account) = &self.account {
            account.wrong.penalize(1).await;
        }
    }

    /// The password, the token or the key was correct.
    pub async fn succeeded(self) {
        // One correct token or key does not excuse an address for wrong ones of others.
        if let Some(bucket) = &self.bucket
            && self.act == Act::WrongPassword
        {
            bucket.forget().await;
        }
        // The guesses from other addresses go on counting.
        if let Some(account) = &self.account {
            account.known.penalize(1).await;
        }
        if let Some(bucket) = &self.logins {
            bucket.penalize(1).await;
        }
    }
}

#[cfg(test)]
mod tests;

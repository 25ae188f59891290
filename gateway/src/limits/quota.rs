//! What a rate limit decided about an act, as an error and as headers.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};
use confab_common::limit::{Decision, Rule};
use confab_common::{Code, Error, Result};

use super::act::Act;

/// The fields of draft-ietf-httpapi-ratelimit-headers-10. Both are lists, so each limit adds a line.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// The decision of a limit about an act.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    pub act: Act,
    pub rule: Rule,
    pub decision: Decision,
}

impl Quota {
    /// Whether the act is admitted.
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub fn admit(&self) -> Result<()> {
        let Decision::Limited { retry_after, .. } = self.decision else { return Ok(()) };
        let (what, seconds) = (self.act.plural(), seconds(retry_after).max(1));
        let error = Error::new(Code::RateLimited, format!("too many {what}; try again in {seconds} s"));
        Err(error.retry_in(retry_after))
    }

    pub fn add_to(&self, headers: &mut HeaderMap) {
        let Rule { name, burst, .. } = self.rule;
        let window = seconds(self.rule.refill()).max(1);
        let (remaining, next) = match self.decision {
            Decision::Allowed { remaining, reset } => (remaining, seconds(reset)),
            Decision::Limited { remaining, retry_after } => (remaining, seconds(retry_after).max(1)),
        };
        for (field, value) in [
            (POLICY, format!("\"{name}\";q={burst};w={window}")),
            (STATE, format!("\"{name}\";r={remaining};t={next}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(field, value);
            }
        }
    }
}

/// Whole seconds, rounded up: a client must not retry too early.
fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000)
}

//! Rate limits that all replicas share: token buckets in Redis, and a copy of each bucket in this process.
//!
//! A [`Rule`] is a limit, and a [`Bucket`] is one key under a rule, such as one address. Acts are charged in one of
//! three ways; one rule is used in one way only:
//!
//! * [`Bucket::check`] is for rare acts. It is exact over all replicas and costs one round trip to Redis, of at most
//!   30 ms. A key that has reached its limit costs no round trip until its bucket has refilled enough.
//! * [`Bucket::take`] is for frequent acts. It never waits: this replica's copy of the bucket decides. A task reports
//!   each 100 ms' worth of acts to Redis and reads there what the other replicas have charged. Before the first report,
//!   each replica can admit a whole burst, so all together can admit too much. The excess is a debt: the bucket admits
//!   nothing more until the debt is paid, so the rate over a longer time is exact. The cost is reported afterwards
//!   rather than leased beforehand, because the first acts of a burst could not wait for a lease.
//! * [`Bucket::peek`] and [`Bucket::penalize`] are for failures. Only failed acts are charged, so concurrent acts can
//!   fail more often than the rule allows; their debt delays the next acts accordingly.
//!
//! When Redis fails, or does not answer within 30 ms, the copies in this process decide alone until a probe succeeds.
//! Each replica then admits as much as the rule allows for all of them together. A limit never rejects an act because
//! Redis is away, and no act waits for a Redis that is known to be away.
//!
//! Redis and this process store keys as HMACs, so neither contains a name or an address.

mod bucket;
mod gcra;
mod link;
mod local;
mod rule;
mod script;
mod similar;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use crate::bus::Bus;
use crate::metrics::limits_shared;
use bucket::Backend;
use link::Link;
use local::{Id, Table};

pub use bucket::Bucket;
pub use rule::{Decision, Rule};
pub use similar::similar;

/// How long a check waits for Redis.
const ANSWER_LIMIT: Duration = Duration::from_millis(30);
/// Replaces the cluster key on a bus without one. The HMACs then have a fixed length but hide nothing.
const PUBLIC_KEY: &[u8] = b"confab limits";

/// The rate limiter of a process.
#[derive(Clone)]
pub struct Limiter {
    backend: Arc<Backend>,
    key: hmac::Key,
}

impl Limiter {
    /// Opens the limiter beside the bus: in the same Redis, over a connection of its own, or in this process. `key` is
    /// the key for limits that is derived from the cluster key. An unreachable Redis is not an error.
    pub fn open(bus: &Bus, key: Option<&hmac::Key>) -> Self {
        Self::answered_within(ANSWER_LIMIT, bus, key)
    }

    /// Opens a limiter that waits up to 10 s for Redis, so that a test on a busy machine never uses the fallback.
    #[cfg(feature = "testing")]
    pub fn patient(bus: &Bus, key: Option<&hmac::Key>) -> Self {
        Self::answered_within(Duration::from_secs(10), bus, key)
    }

    fn answered_within(limit: Duration, bus: &Bus, key: Option<&hmac::Key>) -> Self {
        let is_shared = limits_shared();
        let link = match bus.redis() {
            Some(address) => Some(Link::open(address, limit, is_shared)),
            None => {
                is_shared.set(1.0);
                None
            }
        };
        let key = key.cloned().unwrap_or_else(|| hmac::Key::new(hmac::HMAC_SHA256, PUBLIC_KEY));
        Self { backend: Arc::new(Backend { table: Table::new(), link }), key }
    }

    /// Returns the bucket of a key under a rule. The key consists of these parts, in this order.
    pub fn bucket(&self, rule: Rule, parts: &[&[u8]]) -> Bucket {
        let id = self.id(rule.name, parts);
        Bucket::new(self.backend.clone(), rule, id)
    }

    /// Whether all replicas share the limits now: always without Redis, because there is one replica then.
    pub fn is_shared(&self) -> bool {
        self.backend.link.as_ref().is_none_or(Link::is_open)
    }

    fn id(&self, rule: &str, parts: &[&[u8]]) -> Id {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [rule.as_bytes()].iter().chain(parts) {
            // With the length in front, no two lists of parts are the same bytes.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut id = Id::default();
        let length = id.len();
        id.copy_from_slice(&context.sign().as_ref()[..length]);
        id
    }
}

#[cfg(test)]
mod tests;

//! The rate limits of the gateway.

use confab_common::Result;
use confab_common::bus::Bus;
use confab_common::cluster_key::ClusterKey;
use confab_common::limit::{Bucket, Decision, Limiter, Rule};
use confab_common::metrics::LIMITS;
use confab_socketio::net::ClientAddress;
use uuid::Uuid;

use super::act::Act;
use super::late::{self, LateRejections};
use super::quota::Quota;
use crate::config::limits::LimitsConfig;

/// The user or the address to which an act is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    User(Uuid),
    Address(ClientAddress),
}

impl Subject {
    /// The user, or the address of a caller without a token.
    pub fn of(user: Option<Uuid>, address: ClientAddress) -> Self {
        user.map_or(Self::Address(address), Self::User)
    }
}

impl From<Uuid> for Subject {
    fn from(user: Uuid) -> Self {
        Self::User(user)
    }
}

impl From<ClientAddress> for Subject {
    fn from(address: ClientAddress) -> Self {
        Self::Address(address)
    }
}

/// The rate limits, shared by all gateways of the bus.
pub struct Limits {
    limiter: Limiter,
    /// In the order of the acts; `None` for an act without a limit.
    rules: [Option<Rule>; Act::ALL.len()],
    pub(super) late: LateRejections,
}

impl Limits {
    /// Opens the limits beside the bus. An unreachable bus is not an error.
    pub fn open(config: &LimitsConfig, bus: &Bus, key: Option<&ClusterKey>) -> Self {
        LIMITS.exist(&Act::ALL.map(Act::name));
        LIMITS.exist(&[late::TOO_MANY]);
        let rules = Act::ALL.map(|act| act.rate(config).rule(act.name()));
        Self { limiter: Limiter::open(bus, key.map(|key| &key.limits)), rules, late: LateRejections::default() }
    }

    /// Charges a rare act, exactly over all gateways. Waits for Redis, at most 30 ms.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn check(&self, act: Act, subject: impl Into<Subject>) -> Result<()> {
        self.decide(act, subject).await.map_or(Ok(()), |quota| quota.admit())
    }

    /// Charges a frequent act without waiting.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self, act: Act, subject: impl Into<Subject>) -> Result<()> {
        self.decide_now(act, subject).map_or(Ok(()), |quota| quota.admit())
    }

    /// Decides about a rare act. `None` if it has no limit.
    pub async fn decide(&self, act: Act, subject: impl Into<Subject>) -> Option<Quota> {
        let bucket = self.bucket_of(act, subject.into())?;
        Some(Self::quota(act, &bucket, bucket.check(1).await))
    }

    /// Decides about a frequent act. `None` if it has no limit.
    pub fn decide_now(&self, act: Act, subject: impl Into<Subject>) -> Option<Quota> {
        let bucket = self.bucket_of(act, subject.into())?;
        Some(Self::quota(act, &bucket, bucket.take(1)))
    }

    /// The bucket of a key that consists of these parts. `None` if the act has no limit.
    pub fn bucket(&self, act: Act, parts: &[&[u8]]) -> Option<Bucket> {
        self.rules[act as usize].map(|rule| self.limiter.bucket(rule, parts))
    }

    /// The bucket of a name that is no act, under this rule; as [`bucket`](Self::bucket) otherwise.
    pub(super) fn bucket_under(&self, rule: Rule, parts: &[&[u8]]) -> Bucket {
        self.limiter.bucket(rule, parts)
    }

    /// Records a decision and counts a rejection.
    pub fn quota(act: Act, bucket: &Bucket, decision: Decision) -> Quota {
        if !decision.is_allowed() {
            LIMITS.hit(act.name());
        }
        Quota { act, rule: *bucket.rule(), decision }
    }

    /// The bucket of a user or an address. `None` if the act has no limit.
    pub(super) fn bucket_of(&self, act: Act, subject: Subject) -> Option<Bucket> {
        match subject {
            Subject::User(user) => self.bucket(act, &[b"user", user.as_bytes()]),
            Subject::Address(address) => self.bucket(act, &[b"address", address.to_string().as_bytes()]),
        }
    }
}

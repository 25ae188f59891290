//! Responses that this node proxied for sessions of other nodes. When a GET appears to be repeated, the session's node
//! requests the outcome of the last response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::net::wire::{Answer, Outcome};
use crate::passage::{NodeId, Passage};

/// Maximum number of sessions whose last response is stored. The time can be short, because a load balancer repeats a
/// GET immediately.
const MAX_SESSIONS: u64 = 65_536;
const REMEMBER_FOR: Duration = Duration::from_secs(60);

/// The last proxied response of each session.
pub struct Proxied {
    next: AtomicU64,
    last: Cache<Box<str>, (u64, Answer)>,
}

impl Proxied {
    pub fn new() -> Self {
        let last = Cache::builder()
            .max_capacity(MAX_SESSIONS)
            .time_to_live(REMEMBER_FOR)
            .eviction_policy(EvictionPolicy::lru());
        Self { next: AtomicU64::new(0), last: last.build() }
    }

    /// The identification of the next GET through this node.
    pub fn next(&self, own: NodeId) -> Passage {
        Passage { node: own, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Stores a response before it is sent.
    pub async fn answered(&self, sid: &str, passage: Passage, answer: Answer) {
        answer.watch();
        self.last.insert(sid.into(), (passage.number, answer)).await;
    }

    /// The outcome of a response; unknown when it is not the session's last one.
    pub async fn outcome(&self, sid: &str, number: u64) -> Outcome {
        match self.last.get(sid).await {
            Some((last, answer)) if last == number => answer.outcome().await,
            _ => Outcome::Unknown,
        }
    }
}

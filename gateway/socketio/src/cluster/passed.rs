//! Responses that this node forwarded to clients of other nodes' sessions. When a GET seems to be repeated, the
//! session's node asks what became of the last response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::net::wire::{Answer, Fate};
use crate::passage::{NodeId, Passage};

/// Most sessions whose last response is remembered. The time can be short: a balancer repeats at once.
const MOST: u64 = 65_536;
const REMEMBERED: Duration = Duration::from_secs(60);

/// The last forwarded response of each session.
pub struct Passed {
    next: AtomicU64,
    last: Cache<Box<str>, (u64, Answer)>,
}

impl Passed {
    pub fn new() -> Self {
        let last =
            Cache::builder().max_capacity(MOST).time_to_live(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
        Self { next: AtomicU64::new(0), last }
    }

    /// The next passage through this node.
    pub fn next(&self, own: NodeId) -> Passage {
        Passage { node: own, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Remembers a response that is about to be forwarded.
    pub async fn answered(&self, sid: &str, passage: Passage, answer: Answer) {
        answer.watch();
        self.last.insert(sid.into(), (passage.number, answer)).await;
    }

    /// What became of a response, if it is the session's last.
    pub async fn fate(&self, sid: &str, number: u64) -> Fate {
        match self.last.get(sid).await {
            Some((last, answer)) if last == number => answer.fate().await,
            _ => Fate::Unknown,
        }
    }
}

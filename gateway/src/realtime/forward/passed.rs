//! Answers that this gateway passed on to clients of others: the session's own gateway asks what became of the last one, when a
//! GET seems to come again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::node::NodeId;
use crate::server::wire::{Answer, Fate};

/// Names the gateway that passes a GET on, and the GET: `<node>.<number>`.
pub const PASSAGE: HeaderName = HeaderName::from_static("confab-forward-passage");

/// Sessions of other gateways whose last answer is remembered, and how long: a balancer repeats at once.
const MOST: u64 = 65_536;
const REMEMBERED: Duration = Duration::from_secs(60);

/// A GET on its way through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// The gateway.
    pub node: NodeId,
    /// Its number for the GET.
    pub number: u64,
}

impl Passage {
    /// That of a request from another gateway; versions before this one do not say.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (node, number) = headers.get(PASSAGE)?.to_str().ok()?.split_once('.')?;
        Some(Self { node: NodeId::of_text(node)?, number: number.parse().ok()? })
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::try_from(format!("{}.{}", self.node.as_str(), self.number)).unwrap_or(const { HeaderValue::from_static("") })
    }
}

/// The last answer to each session.
pub struct Passed {
    next: AtomicU64,
    last: Cache<Box<str>, (u64, Answer)>,
}

impl Passed {
    pub fn new() -> Self {
        let last = Cache::builder().max_capacity(MOST).time_to_live(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
        Self { next: AtomicU64::new(0), last }
    }

    /// The next passage through this gateway.
    pub fn next(&self, own: NodeId) -> Passage {
        Passage { node: own, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// The answer is passed on now.
    pub async fn answered(&self, sid: &str, passage: Passage, answer: Answer) {
        answer.watch();
        self.last.insert(sid.into(), (passage.number, answer)).await;
    }

    /// What became of one, if it is the last.
    pub async fn fate(&self, sid: &str, number: u64) -> Fate {
        match self.last.get(sid).await {
            Some((last, answer)) if last == number => answer.fate().await,
            _ => Fate::Unknown,
        }
    }
}

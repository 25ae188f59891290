//! Responses that this gateway forwarded to clients of other gateways' sessions. When a GET seems to be repeated, the
//! session's gateway asks what became of the last response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::node::NodeId;
use crate::server::wire::{Answer, Fate};

/// Names the forwarding gateway and the GET: `<node>.<number>`.
pub const PASSAGE: HeaderName = HeaderName::from_static("confab-forward-passage");

/// Most sessions whose last response is remembered. The time can be short: a balancer repeats at once.
const MOST: u64 = 65_536;
const REMEMBERED: Duration = Duration::from_secs(60);

/// A GET on its way through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// The forwarding gateway.
    pub node: NodeId,
    /// That gateway's number for the GET.
    pub number: u64,
}

impl Passage {
    /// Reads the header of a forwarded request; earlier releases do not send it.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (node, number) = headers.get(PASSAGE)?.to_str().ok()?.split_once('.')?;
        Some(Self { node: NodeId::of_text(node)?, number: number.parse().ok()? })
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::try_from(format!("{}.{}", self.node.as_str(), self.number)).unwrap_or(const { HeaderValue::from_static("") })
    }
}

/// The last forwarded response of each session.
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

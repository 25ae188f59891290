//! What all outboxes of a gateway share: how much waits in them together, and whether anything may be written at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::pulse::Pulse;

/// Changes of an outbox smaller than this are not counted: the counter is touched by few of those who read well.
const STEP: usize = 16 * 1024;
/// How often it is looked whether little waits.
const LOOK: Duration = Duration::from_millis(20);

/// Shared by all outboxes.
pub struct Shared {
    /// Most bytes that may wait in all of them.
    limit: usize,
    total: AtomicUsize,
    over: Notify,
    pulse: Arc<Pulse>,
}

impl Shared {
    /// Outboxes that hold at most so many bytes together; nothing is written while the process does not know what it missed.
    pub fn new(limit: usize, pulse: Arc<Pulse>) -> Self {
        Self { limit, total: AtomicUsize::new(0), over: Notify::new(), pulse }
    }

    /// Takes note of an outbox that has changed from `counted` to `bytes`, and returns what is counted of it now.
    pub(super) fn count(&self, counted: usize, bytes: usize) -> usize {
        if counted.abs_diff(bytes) < STEP && (bytes != 0 || counted == 0) {
            return counted;
        }
        if bytes < counted {
            self.total.fetch_sub(counted - bytes, Ordering::Relaxed);
        } else if self.total.fetch_add(bytes - counted, Ordering::Relaxed) + (bytes - counted) > self.limit {
            self.over.notify_one();
        }
        bytes
    }

    /// How much waits in all of them.
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether more waits than may.
    pub fn is_over(&self) -> bool {
        self.bytes() > self.limit
    }

    /// Completes when more waits than may.
    pub async fn over(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }

    /// Completes when there is room for answers that nobody could bound later.
    pub async fn roomy(&self) {
        while self.bytes() > self.limit / 2 {
            sleep(LOOK).await;
        }
    }

    /// Whether nothing may be written.
    pub fn is_paused(&self) -> bool {
        self.pulse.is_paused()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(usize::MAX, Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_counted_follows_what_waits() {
        let shared = Shared::new(3 * STEP, Arc::default());
        let mut counted = 0;
        for (bytes, expected) in [(STEP - 1, 0), (STEP, STEP), (2 * STEP - 1, STEP), (3 * STEP, 3 * STEP), (7, 7), (0, 0), (7, 0)] {
            counted = shared.count(counted, bytes);
            assert_eq!((counted, shared.total.load(Ordering::Relaxed)), (expected, expected), "{bytes}");
        }
        let mut over = std::pin::pin!(shared.over());
        assert!(futures::poll!(&mut over).is_pending());
        shared.count(0, 3 * STEP);
        assert!(futures::poll!(&mut over).is_pending());
        let other = shared.count(0, STEP);
        over.await;
        shared.count(other, 0);
        assert!(!shared.is_over());
    }
}

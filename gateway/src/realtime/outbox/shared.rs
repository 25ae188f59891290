//! What all outboxes of a gateway share: how much waits in them together, and whether anything may be written at all.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Changes of an outbox smaller than this are not counted: the counter is touched by few of those who read well.
const STEP: usize = 16 * 1024;
/// A clock that has not been seen going for so long says that the process stood still.
const PAUSE_MS: u64 = 2000;
/// How often it is looked whether little waits.
const LOOK: Duration = Duration::from_millis(20);

/// Read at every write: a few milliseconds coarse, and much cheaper than the exact one.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Shared by all outboxes.
pub struct Shared {
    /// Most bytes that may wait in all of them.
    limit: usize,
    total: AtomicUsize,
    over: Notify,
    /// When the clock was last seen going, in milliseconds; the far future before anybody looks.
    beat: AtomicU64,
}

impl Shared {
    /// Outboxes that hold at most so many bytes together.
    pub fn new(limit: usize) -> Self {
        Self { limit, total: AtomicUsize::new(0), over: Notify::new(), beat: AtomicU64::new(u64::MAX) }
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

    /// Whether more waits than may.
    pub fn is_over(&self) -> bool {
        self.total.load(Ordering::Relaxed) > self.limit
    }

    /// Completes when more waits than may.
    pub async fn over(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }

    /// Completes when there is room for answers that nobody could bound later.
    pub async fn roomy(&self) {
        while self.total.load(Ordering::Relaxed) > self.limit / 2 {
            sleep(LOOK).await;
        }
    }

    /// Says that the clock is going; `false` when it stood still before. Then nothing is written until [`resume`](Self::resume).
    pub fn beat(&self) -> bool {
        let now = now();
        let goes = !stood_still(self.beat.load(Ordering::Relaxed), now);
        if goes {
            self.beat.store(now, Ordering::Relaxed);
        }
        goes
    }

    /// Has outboxes written again, unless the clock has stood still since `begin`.
    pub fn resume(&self, begin: u64) -> bool {
        let goes = !stood_still(begin, now());
        if goes {
            self.beat.store(begin, Ordering::Relaxed);
        }
        goes
    }

    /// As if the process had stood still.
    #[cfg(test)]
    pub fn stand_still(&self) {
        self.beat.store(now() - PAUSE_MS - 1, Ordering::Relaxed);
    }

    /// Whether nothing may be written: the process stood still and does not know yet what has happened meanwhile.
    pub fn is_paused(&self) -> bool {
        stood_still(self.beat.load(Ordering::Relaxed), now())
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// The time in milliseconds, from some moment on.
pub fn now() -> u64 {
    let time = clock_gettime(CLOCK);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn stood_still(beat: u64, now: u64) -> bool {
    now.saturating_sub(beat) > PAUSE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_counted_follows_what_waits() {
        let shared = Shared::new(3 * STEP);
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

    #[test]
    fn a_clock_that_stood_still_pauses_until_it_is_resumed() {
        let shared = Shared::default();
        assert!(!shared.is_paused() && shared.beat());
        let long_ago = now() - PAUSE_MS - 100;
        shared.beat.store(long_ago, Ordering::Relaxed);
        assert!(shared.is_paused() && !shared.beat() && shared.is_paused());
        assert!(!shared.resume(long_ago), "it stood still again meanwhile");
        assert!(shared.is_paused());
        assert!(shared.resume(now()) && !shared.is_paused() && shared.beat());
    }
}

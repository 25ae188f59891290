//! Detects that this process stood still (SIGSTOP, a machine that was frozen or suspended), so that it does not act
//! before it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// A gap this long between two readings of the clock means that the process stood still.
const PAUSE_MS: u64 = 2000;
/// How often the clock is read.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long after a pause the process needs to read the requests that arrived meanwhile. Less than a pause, so that the
/// wait itself does not count as one.
const OUTDATED_FOR: Duration = Duration::from_secs(1);

/// This clock keeps running while the machine is suspended.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Detects pauses by reading the clock regularly.
pub struct PauseDetector {
    /// When the clock was last read, in milliseconds; the far future before the first reading.
    read: AtomicU64,
    /// The number of pauses that have ended.
    ended: AtomicU64,
}

impl Default for PauseDetector {
    fn default() -> Self {
        Self { read: AtomicU64::new(u64::MAX), ended: AtomicU64::default() }
    }
}

impl PauseDetector {
    /// Records a reading of the clock. Returns `false` if the process stood still before it;
    /// [`is_paused`](Self::is_paused) then returns `true` until [`resume`](Self::resume).
    pub fn observe(&self) -> bool {
        let now = now();
        let runs = !stood_still(self.read.load(Ordering::Relaxed), now);
        if runs {
            self.read.store(now, Ordering::Relaxed);
        }
        runs
    }

    /// Records that the process has caught up, unless it stood still again since `begin`.
    pub fn resume(&self, begin: u64) -> bool {
        let runs = !stood_still(begin, now());
        if runs {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.read.store(begin, Ordering::Relaxed);
        }
        runs
    }

    /// Simulates a standstill of the process, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn stand_still(&self) {
        self.read.store(now() - PAUSE_MS - 1, Ordering::Relaxed);
    }

    /// Returns whether the process stood still and has not caught up yet.
    pub fn is_paused(&self) -> bool {
        stood_still(self.read.load(Ordering::Relaxed), now())
    }

    /// Returns the number of pauses that have ended. If it has not changed and no pause is reported, the process has not
    /// stood still in between.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Keeps `pauses` up to date without end: it reports a pause until `catch_up` has returned `true` after it.
pub async fn watch<F: Future<Output = bool>>(pauses: Arc<PauseDetector>, catch_up: impl Fn() -> F) {
    loop {
        if !pauses.observe() {
            let begin = now();
            if catch_up().await {
                pauses.resume(begin);
            }
        }
        sleep(CHECK_INTERVAL).await;
    }
}

/// Waits until the process has read the requests that arrived during a pause. Their clients may have given up and
/// repeated them elsewhere.
pub async fn requests_read() -> bool {
    sleep(OUTDATED_FOR).await;
    true
}

/// Milliseconds since an arbitrary moment.
pub fn now() -> u64 {
    let time = clock_gettime(CLOCK);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn stood_still(observed: u64, now: u64) -> bool {
    now.saturating_sub(observed) > PAUSE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standstill_pauses_until_resumed() {
        let detector = PauseDetector::default();
        assert!(!detector.is_paused() && detector.observe());
        let long_ago = now() - PAUSE_MS - 100;
        detector.read.store(long_ago, Ordering::Relaxed);
        assert!(detector.is_paused() && !detector.observe() && detector.is_paused());
        assert!(!detector.resume(long_ago), "the process stood still again meanwhile");
        assert!(detector.is_paused());
        assert_eq!(detector.ended(), 0);
        assert!(detector.resume(now()) && !detector.is_paused() && detector.observe());
        assert_eq!(detector.ended(), 1);
    }
}

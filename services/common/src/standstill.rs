//! Detects that this process stood still (SIGSTOP, a machine that was frozen or asleep), so that it does not act before
//! it knows what it missed.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// A gap this long between two looks at the clock means that the process stood still.
const PAUSE_MS: u64 = 2000;

/// This clock keeps running while the machine sleeps.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// When the clock was last read, in milliseconds; the far future before the first reading.
pub struct PauseDetector(AtomicU64);

impl Default for PauseDetector {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl PauseDetector {
    /// Records that the clock was read; `false` when the process stood still before. [`is_paused`](Self::is_paused)
    /// then holds until [`resume`](Self::resume).
    pub fn observe(&self) -> bool {
        let now = now();
        let runs = !stood_still(self.0.load(Ordering::Relaxed), now);
        if runs {
            self.0.store(now, Ordering::Relaxed);
        }
        runs
    }

    /// Records that the process has caught up, unless it stood still again since `begin`.
    pub fn resume(&self, begin: u64) -> bool {
        let runs = !stood_still(begin, now());
        if runs {
            self.0.store(begin, Ordering::Relaxed);
        }
        runs
    }

    /// Simulates a pause of the process, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn stand_still(&self) {
        self.0.store(now() - PAUSE_MS - 1, Ordering::Relaxed);
    }

    /// Whether the process stood still and has not caught up yet.
    pub fn is_paused(&self) -> bool {
        stood_still(self.0.load(Ordering::Relaxed), now())
    }
}

/// The time in milliseconds since an arbitrary moment.
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
    fn a_clock_that_stood_still_pauses_until_it_is_resumed() {
        let detector = PauseDetector::default();
        assert!(!detector.is_paused() && detector.observe());
        let long_ago = now() - PAUSE_MS - 100;
        detector.0.store(long_ago, Ordering::Relaxed);
        assert!(detector.is_paused() && !detector.observe() && detector.is_paused());
        assert!(!detector.resume(long_ago), "it stood still again meanwhile");
        assert!(detector.is_paused());
        assert!(detector.resume(now()) && !detector.is_paused() && detector.observe());
    }
}

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
pub struct Pulse(AtomicU64);

impl Default for Pulse {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Pulse {
    /// Records that the clock was read; `false` when the process stood still before. [`is_paused`](Self::is_paused)
    /// then holds until [`resume`](Self::resume).
    pub fn beat(&self) -> bool {
        let now = now();
        let goes = !stood_still(self.0.load(Ordering::Relaxed), now);
        if goes {
            self.0.store(now, Ordering::Relaxed);
        }
        goes
    }

    /// Records that the process has caught up, unless it stood still again since `begin`.
    pub fn resume(&self, begin: u64) -> bool {
        let goes = !stood_still(begin, now());
        if goes {
            self.0.store(begin, Ordering::Relaxed);
        }
        goes
    }

    /// Simulates a pause of the process.
    #[cfg(test)]
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

fn stood_still(beat: u64, now: u64) -> bool {
    now.saturating_sub(beat) > PAUSE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_still_pauses_until_it_is_resumed() {
        let pulse = Pulse::default();
        assert!(!pulse.is_paused() && pulse.beat());
        let long_ago = now() - PAUSE_MS - 100;
        pulse.0.store(long_ago, Ordering::Relaxed);
        assert!(pulse.is_paused() && !pulse.beat() && pulse.is_paused());
        assert!(!pulse.resume(long_ago), "it stood still again meanwhile");
        assert!(pulse.is_paused());
        assert!(pulse.resume(now()) && !pulse.is_paused() && pulse.beat());
    }
}

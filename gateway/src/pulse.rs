//! Whether this process stood still (SIGSTOP, a machine that was frozen or asleep) and does not know yet what has happened
//! meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// A clock that has not been seen going for so long says that the process stood still.
const PAUSE_MS: u64 = 2000;

/// Goes on while the machine sleeps.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// When the clock was last seen going, in milliseconds; the far future before anybody looks.
pub struct Pulse(AtomicU64);

impl Default for Pulse {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Pulse {
    /// Says that the clock is going; `false` when it stood still before. Then [`is_paused`](Self::is_paused) holds until
    /// [`resume`](Self::resume).
    pub fn beat(&self) -> bool {
        let now = now();
        let goes = !stood_still(self.0.load(Ordering::Relaxed), now);
        if goes {
            self.0.store(now, Ordering::Relaxed);
        }
        goes
    }

    /// Says that what was missed is known, unless the clock has stood still since `begin`.
    pub fn resume(&self, begin: u64) -> bool {
        let goes = !stood_still(begin, now());
        if goes {
            self.0.store(begin, Ordering::Relaxed);
        }
        goes
    }

    /// As if the process had stood still.
    #[cfg(test)]
    pub fn stand_still(&self) {
        self.0.store(now() - PAUSE_MS - 1, Ordering::Relaxed);
    }

    /// Whether the process stood still and does not know yet what it missed.
    pub fn is_paused(&self) -> bool {
        stood_still(self.0.load(Ordering::Relaxed), now())
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

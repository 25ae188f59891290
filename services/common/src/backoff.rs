//! Random pauses, so that programs and clients that failed together do not try again together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest first pause.
const FIRST: Duration = Duration::from_millis(25);

/// The pauses between attempts that fail.
#[derive(Debug)]
pub struct Backoff {
    /// Upper bound of the next pause.
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Creates pauses that grow from 25 ms up to this length.
    pub fn up_to(longest: Duration) -> Self {
        Self { next: FIRST, longest }
    }

    /// Returns the next pause: a random time between half of the bound and the bound, which doubles each time.
    pub fn pause(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = (self.next * 2).min(self.longest);
        half + jitter(half)
    }

    /// Begins with the first pause again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// Returns a random time of at most this length.
pub fn jitter(most: Duration) -> Duration {
    // Each `RandomState` has other keys, so the hash of nothing is a random number.
    most.mul_f64(RandomState::new().hash_one(()) as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_have_jitter() {
        let longest = Duration::from_secs(2);
        let pauses = || {
            let mut backoff = Backoff::up_to(longest);
            std::array::from_fn::<_, 12, _>(|_| backoff.pause())
        };
        let (first, second) = (pauses(), pauses());
        let mut bound = FIRST;
        for pause in first {
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} {bound:?}");
            bound = (bound * 2).min(longest);
        }
        assert_ne!(first, second);
    }
}

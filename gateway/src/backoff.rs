//! Pauses between the attempts of a send that was rejected with `unavailable`: they grow, and they have jitter, so that
//! the gateways do not repeat at the same moments. Jitter also spreads the ends of many sockets.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The longest first pause.
const FIRST: Duration = Duration::from_millis(25);
/// The longest pause. A send waits 2.5 s by default, so it has at most 15 attempts.
const LONGEST: Duration = Duration::from_millis(400);
/// The least time for an attempt. With less, the outcome may be unknown at the deadline, although before the attempt it
/// was known that nothing was done.
const ATTEMPT: Duration = Duration::from_millis(500);

/// The pauses of one operation.
#[derive(Debug)]
pub struct Backoff {
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { longest: FIRST }
    }
}

impl Backoff {
    /// Returns the next pause: between half of the present length and the whole, which then doubles up to 400 ms.
    pub fn pause(&mut self) -> Duration {
        let half = self.longest / 2;
        self.longest = (self.longest * 2).min(LONGEST);
        half + jitter(half)
    }
}

/// Returns a random time of at most this length.
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX))
}

/// Returns whether an attempt that begins at this time can be answered before the deadline.
pub fn is_worth_it(begin: Instant, deadline: Instant) -> bool {
    begin + ATTEMPT <= deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_differ() {
        let mut backoff = Backoff::default();
        for longest in [25, 50, 100, 200, 400, 400, 400] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} for at most {longest:?}");
        }
        assert!((0..10).any(|_| backoff.pause() != backoff.pause()));
    }
}

//! When a gateway repeats a send that was rejected with `unavailable`.

use std::time::Duration;

use confab_common::backoff::Backoff;
use tokio::time::Instant;

/// The longest pause. A send waits 2.5 s by default, so it has at most 15 attempts.
const LONGEST: Duration = Duration::from_millis(400);
/// The least time for an attempt. With less, the outcome may be unknown at the deadline, although before the attempt it
/// was known that nothing was done.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Returns the pauses of one operation.
pub fn pauses() -> Backoff {
    Backoff::up_to(LONGEST)
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
        let mut backoff = pauses();
        for longest in [25, 50, 100, 200, 400, 400, 400] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} for at most {longest:?}");
        }
        assert!((0..10).any(|_| backoff.pause() != backoff.pause()));
    }
}

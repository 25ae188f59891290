//! Detects a followed partition that does not keep up with its head.

use std::time::Duration;

use tokio::time::Instant;

/// How long a partition may take to reach a reported head.
const LAG_LIMIT: Duration = Duration::from_secs(5);

/// The lag of a partition, measured at every poll of the heads.
#[derive(Debug, Default)]
pub struct Lag {
    /// The oldest reported head that is not reached yet, and when it was reported.
    behind: Option<(u64, Instant)>,
}

impl Lag {
    /// Records a head. `false` when an earlier head has not been reached within the limit.
    pub fn see(&mut self, reached: u64, head: u64, now: Instant) -> bool {
        // A head that was rolled back can never be reached.
        self.behind = self.behind.filter(|(target, _)| (reached + 1..=head).contains(target));
        if head > reached {
            self.behind.get_or_insert((head, now));
        }
        self.behind.is_none_or(|(_, since)| now - since <= LAG_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_lags_when_it_does_not_reach_an_old_head() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        let mut see = |reached, head, second| lag.see(reached, head, begin + Duration::from_secs(second));
        assert!(see(7, 7, 0) && see(7, 9, 1) && see(8, 20, 6));
        assert!(!see(8, 20, 7), "position 9 was reported six seconds ago");
        // The partition advances, although it is always a little behind.
        assert!(see(10, 30, 8) && see(20, 40, 13) && see(30, 50, 14) && see(40, 60, 18));
        assert!(!see(40, 60, 24));
        // The log was restored to an older state.
        assert!(see(40, 30, 25) && see(30, 30, 60));
    }
}

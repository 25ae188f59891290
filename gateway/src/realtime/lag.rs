//! Whether a followed partition keeps up with its head.

use std::time::Duration;

use tokio::time::Instant;

/// How long a position that the database has told of may not be reached.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far behind a partition is, as seen at every poll of the heads.
#[derive(Debug, Default)]
pub struct Lag {
    /// A position that was not reached when it was told of, and when that was.
    behind: Option<(u64, Instant)>,
}

impl Lag {
    /// Takes note of a head; `false` when an earlier one has not been reached for too long.
    pub fn see(&mut self, reached: u64, head: u64, now: Instant) -> bool {
        // A head that was taken back will never be reached.
        self.behind = self.behind.filter(|(target, _)| (reached + 1..=head).contains(target));
        if head > reached {
            self.behind.get_or_insert((head, now));
        }
        self.behind.is_none_or(|(_, since)| now - since <= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_who_does_not_reach_what_was_told_long_ago() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        let mut see = |reached, head, second| lag.see(reached, head, begin + Duration::from_secs(second));
        assert!(see(7, 7, 0) && see(7, 9, 1) && see(8, 20, 6));
        assert!(!see(8, 20, 7), "nine was told of six seconds ago");
        // It moves on, if always a little behind.
        assert!(see(10, 30, 8) && see(20, 40, 13) && see(30, 50, 14) && see(40, 60, 18));
        assert!(!see(40, 60, 24));
        // The log was restored to an older state.
        assert!(see(40, 30, 25) && see(30, 30, 60));
    }
}

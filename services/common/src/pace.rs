//! How slowly a body may arrive. Whoever holds a place for it must send faster the longer that takes.

use std::time::Duration;

/// Longest without a byte, and the time over which the rate is taken.
pub const WINDOW: Duration = Duration::from_secs(30);

/// Least bytes a second, after so long a wait for the sender.
const RATES: [(Duration, u64); 3] = [(Duration::from_secs(600), 10 * 1024), (Duration::from_secs(120), 4 * 1024), (Duration::ZERO, 1024)];

/// What has arrived, and how long it was waited for. Time in which nobody reads is not the sender's.
#[derive(Debug, Default)]
pub struct Pace {
    /// Waited before this window.
    before: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Notes bytes and how long they were waited for; `false` when a window ends that had too few.
    #[must_use]
    pub fn keeps(&mut self, bytes: usize, waited: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < WINDOW {
            return true;
        }
        let rate = RATES.iter().find(|(after, _)| self.before >= *after).map_or(0, |(_, rate)| *rate);
        let enough = self.bytes >= rate * WINDOW.as_secs();
        *self = Self { before: self.before + self.waited, ..Self::default() };
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds a sender of so many bytes a second is too slow.
    fn given_up(mut rate: impl FnMut(u64) -> usize) -> Option<u64> {
        let mut pace = Pace::default();
        (0..100_000).find(|second| !pace.keeps(rate(*second), Duration::from_secs(1))).map(|second| second + 1)
    }

    #[test]
    fn the_longer_it_takes_the_faster_it_must_be() {
        assert_eq!(given_up(|_| 0), Some(30));
        assert_eq!(given_up(|_| 1023), Some(30));
        assert_eq!(given_up(|_| 1100), Some(150));
        assert_eq!(given_up(|_| 4095), Some(150));
        assert_eq!(given_up(|_| 5000), Some(630));
        assert_eq!(given_up(|_| 10_239), Some(630));
        assert_eq!(given_up(|_| 10_240), None);
        // An honest client on a slow line, which stands still for a third of the time.
        assert_eq!(given_up(|second| if second % 15 < 5 { 0 } else { 20_000 }), None);
    }

    #[test]
    fn what_was_fast_before_must_go_on() {
        assert_eq!(given_up(|second| if second < 300 { 1 << 20 } else { 1100 }), Some(330));
    }

    #[test]
    fn only_time_in_which_it_is_waited_for_counts() {
        let mut pace = Pace::default();
        assert!((0..100_000).all(|_| pace.keeps(1, Duration::ZERO)));
    }
}

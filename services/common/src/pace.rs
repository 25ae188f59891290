//! Bounds how slowly a request body may arrive. The longer an upload takes, the faster it must be.

use std::time::Duration;

/// Longest time without a byte, and the window over which the rate is computed.
pub const WINDOW: Duration = Duration::from_secs(30);

/// Minimum rates in bytes per second, each after this much time waiting for the sender.
const RATES: [(Duration, u64); 3] =
    [(Duration::from_secs(600), 10 * 1024), (Duration::from_secs(120), 4 * 1024), (Duration::ZERO, 1024)];

/// The bytes received, and how long the server waited for them. Time during which the server does not read does not
/// count.
#[derive(Debug, Default)]
pub struct Pace {
    /// Time spent waiting before the current window.
    before: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Records bytes and how long the server waited for them. Returns `false` when a window ends below the minimum
    /// rate.
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

    /// Returns the second in which a sender at this rate is rejected.
    fn given_up(mut rate: impl FnMut(u64) -> usize) -> Option<u64> {
        let mut pace = Pace::default();
        (0..100_000).find(|second| !pace.keeps(rate(*second), Duration::from_secs(1))).map(|second| second + 1)
    }

    #[test]
    fn minimum_rate_grows_with_duration() {
        assert_eq!(given_up(|_| 0), Some(30));
        assert_eq!(given_up(|_| 1023), Some(30));
        assert_eq!(given_up(|_| 1100), Some(150));
        assert_eq!(given_up(|_| 4095), Some(150));
        assert_eq!(given_up(|_| 5000), Some(630));
        assert_eq!(given_up(|_| 10_239), Some(630));
        assert_eq!(given_up(|_| 10_240), None);
        // A client on a slow line that stalls a third of the time is accepted.
        assert_eq!(given_up(|second| if second % 15 < 5 { 0 } else { 20_000 }), None);
    }

    #[test]
    fn fast_start_does_not_excuse_a_stall() {
        assert_eq!(given_up(|second| if second < 300 { 1 << 20 } else { 1100 }), Some(330));
    }

    #[test]
    fn only_time_waiting_for_the_sender_counts() {
        let mut pace = Pace::default();
        assert!((0..100_000).all(|_| pace.keeps(1, Duration::ZERO)));
    }
}

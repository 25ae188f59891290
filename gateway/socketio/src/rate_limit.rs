//! Rate limiting: a bucket of admissions that refills at the rate. Its capacity is two seconds of the rate.

use std::time::Instant;

/// A rate limiter: a bucket of admissions that refills at the rate. A full bucket admits a burst of two seconds of the
/// rate at once.
pub struct RateLimit {
    /// Admissions per second; 0: no limit.
    rate: f64,
    left: f64,
    since: Instant,
}

impl RateLimit {
    /// Creates a full bucket for `rate` admissions per second (0: no limit).
    pub fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { rate, left: 2.0 * rate, since: Instant::now() }
    }

    /// Takes one admission from the bucket; `false` when the bucket is empty.
    pub fn admit(&mut self) -> bool {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let refill = now.duration_since(self.since).as_secs_f64() * self.rate;
        self.left = (self.left + refill).min(2.0 * self.rate);
        self.since = now;
        let admitted = self.left >= 1.0;
        if admitted {
            self.left -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let now = Instant::now();
        let mut limit = RateLimit { since: now, ..RateLimit::new(10) };
        assert_eq!((0..30).filter(|_| limit.admit_at(now)).count(), 20);
        assert_eq!((0..30).filter(|_| limit.admit_at(now + Duration::from_millis(500))).count(), 5);
        let mut unlimited = RateLimit::new(0);
        assert!((0..100_000).all(|_| unlimited.admit()));
    }
}

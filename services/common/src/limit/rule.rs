//! A limit, and the decision about one act.

use std::time::Duration;

use super::gcra::{Charge, Outcome};

/// How many times its size a bucket can be overdrawn.
const MAX_DEBT: i64 = 100;
/// Frequent acts are reported to Redis when they are worth this much time.
const REPORT_WORTH: i64 = 100_000;

/// A limit: a bucket of `burst` units, of which one refills in `per`. Times are exact to 1 µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Part of the key of every bucket, so it is unique among the rules of an installation.
    pub name: &'static str,
    /// At least 1.
    pub burst: u32,
    /// At least 1 µs. An empty bucket should refill within days, not years.
    pub per: Duration,
}

impl Rule {
    /// How long an empty bucket refills.
    pub fn refill(&self) -> Duration {
        Duration::from_micros(self.size().unsigned_abs())
    }

    /// The cost of an act, in microseconds of refilling: at most a whole bucket, so that every act is possible.
    pub(super) fn cost(&self, units: u32) -> i64 {
        i64::from(units.min(self.burst)).saturating_mul(self.unit())
    }

    /// The size of the bucket, in microseconds of refilling.
    pub(super) fn size(&self) -> i64 {
        i64::from(self.burst.max(1)).saturating_mul(self.unit())
    }

    /// A charge that is rejected when the bucket has too little. Debts are forgiven.
    pub(super) fn exact(&self, cost: i64) -> Charge {
        Charge { cost, size: self.size(), most: self.size() }
    }

    /// A charge that is rejected when the bucket has too little, or has debts.
    pub(super) fn careful(&self, cost: i64) -> Charge {
        Charge { cost, size: self.size(), most: self.debt() }
    }

    /// A charge for what has happened already. A negative cost refills.
    pub(super) fn forced(&self, cost: i64) -> Charge {
        Charge { cost, size: self.debt(), most: self.debt() }
    }

    /// A bucket that owes this much admits nothing more, not even what has happened already.
    pub(super) fn debt(&self) -> i64 {
        self.size().saturating_mul(MAX_DEBT)
    }

    /// From this cost, frequent acts are reported to Redis.
    pub(super) fn report_from(&self) -> i64 {
        (self.size() / 10).clamp(1, REPORT_WORTH)
    }

    fn unit(&self) -> i64 {
        i64::try_from(self.per.as_nanos().saturating_add(500) / 1000).unwrap_or(i64::MAX).max(1)
    }
}

/// The decision about one act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed {
        /// Units that are left.
        remaining: u32,
        /// When there will be one more unit; zero while the bucket is full.
        reset: Duration,
    },
    Limited {
        /// Units that are left: fewer than the act costs.
        remaining: u32,
        /// When the bucket will have enough for the same act.
        retry_after: Duration,
    },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    pub(super) fn of(rule: &Rule, cost: i64, outcome: Outcome) -> Self {
        let (size, unit) = (rule.size(), rule.unit());
        let left = (size - outcome.ahead).max(0) / unit;
        let remaining = u32::try_from(left).unwrap_or(u32::MAX);
        let until = |free: i64| Duration::from_micros(u64::try_from(free - (size - outcome.ahead)).unwrap_or(0));
        if outcome.admitted {
            Self::Allowed { remaining, reset: until(size.min((left + 1).saturating_mul(unit))) }
        } else {
            Self::Limited { remaining, retry_after: until(cost) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { name: "test", burst: 5, per: Duration::from_millis(100) };

    fn decision(units: u32, admitted: bool, ahead_ms: i64) -> Decision {
        Decision::of(&RULE, RULE.cost(units), Outcome { admitted, ahead: ahead_ms * 1000 })
    }

    #[test]
    fn decisions_count_units_and_times() {
        let allowed = |remaining, ms| Decision::Allowed { remaining, reset: Duration::from_millis(ms) };
        assert_eq!(decision(1, true, 0), allowed(5, 0));
        assert_eq!(decision(1, true, 100), allowed(4, 100));
        assert_eq!(decision(1, true, 130), allowed(3, 30));
        assert_eq!(decision(1, true, 500), allowed(0, 100));
        assert_eq!(decision(1, true, 900), allowed(0, 500), "a debt is paid first");
        let limited = |remaining, ms| Decision::Limited { remaining, retry_after: Duration::from_millis(ms) };
        assert_eq!(decision(1, false, 500), limited(0, 100));
        assert_eq!(decision(1, false, 401), limited(0, 1));
        assert_eq!(decision(3, false, 330), limited(1, 130));
        assert_eq!(decision(9, false, 100), limited(4, 100), "an act costs at most a whole bucket");
    }

    #[test]
    fn whole_microseconds_never_cost_a_unit_of_the_burst() {
        for rate in [1, 3, 7, 999, 10_000] {
            let rule = Rule { name: "test", burst: 7, per: Duration::from_secs(1) / rate };
            assert_eq!(rule.cost(7), rule.size());
            assert_eq!(7 * rule.cost(1), rule.size());
        }
    }
}

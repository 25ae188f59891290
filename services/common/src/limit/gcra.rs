//! The arithmetic of a token bucket, as the generic cell rate algorithm (GCRA): the whole bucket is one number, the
//! time at which it will be full. `bucket.lua` computes the same in Redis; a test compares the two.

/// What to charge to a bucket. Costs and sizes are times: how long the bucket takes to refill that much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// A negative cost refills the bucket.
    pub cost: i64,
    /// The charge is rejected if the bucket would take longer than this to refill.
    pub size: i64,
    /// The longest time that a bucket takes to refill. It bounds the effect of a clock that is set back.
    pub most: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    pub admitted: bool,
    /// How long the bucket takes to refill now.
    pub ahead: i64,
}

/// Charges a bucket that will be full at `full_at`. Returns the outcome, and when the bucket will be full.
pub fn charge(full_at: i64, now: i64, Charge { cost, size, most }: Charge) -> (Outcome, i64) {
    let before = full_at.clamp(now, now.saturating_add(most));
    let after = before.saturating_add(cost).max(now);
    if after - now > size {
        (Outcome { admitted: false, ahead: before - now }, full_at)
    } else {
        (Outcome { admitted: true, ahead: after - now }, if cost == 0 { full_at } else { after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Charge = Charge { cost: 10, size: 50, most: 50 };

    fn admitted(full_at: &mut i64, now: i64, charge: Charge) -> bool {
        let outcome;
        (outcome, *full_at) = super::charge(*full_at, now, charge);
        outcome.admitted
    }

    #[test]
    fn burst_is_followed_by_the_rate() {
        let mut full_at = 0;
        assert_eq!((0..20).filter(|_| admitted(&mut full_at, 1000, EXACT)).count(), 5);
        assert!(!admitted(&mut full_at, 1009, EXACT));
        assert!(admitted(&mut full_at, 1010, EXACT));
        assert!(!admitted(&mut full_at, 1010, EXACT));
        assert_eq!((0..20).filter(|_| admitted(&mut full_at, 9000, EXACT)).count(), 5, "no more than a full bucket");
    }

    #[test]
    fn any_window_admits_at_most_burst_and_rate() {
        let (mut full_at, mut admissions) = (0, Vec::new());
        for now in (0..2000).step_by(3) {
            admissions.extend(std::iter::repeat_with(|| now).take(4).filter(|_| admitted(&mut full_at, now, EXACT)));
        }
        for (at, from) in admissions.iter().enumerate() {
            for (count, until) in admissions[at..].iter().enumerate() {
                assert!((count as i64) < 5 + (until - from) / 10, "{} from {from} until {until}", count + 1);
            }
        }
        assert!(admissions.len() >= 5 + 1990 / 10 - 1);
    }

    #[test]
    fn large_cost_needs_enough_at_once() {
        let mut full_at = 0;
        assert!(admitted(&mut full_at, 0, Charge { cost: 30, ..EXACT }));
        assert!(!admitted(&mut full_at, 0, Charge { cost: 30, ..EXACT }));
        assert!(admitted(&mut full_at, 0, Charge { cost: 20, ..EXACT }));
    }

    #[test]
    fn clock_set_back_empties_a_bucket_at_most() {
        let mut full_at = 1_000_000;
        assert!(!admitted(&mut full_at, 0, EXACT));
        assert_eq!(full_at, 1_000_000, "a rejected charge changes nothing");
        let (outcome, _) = charge(full_at, 0, EXACT);
        assert_eq!(outcome.ahead, 50);
    }

    #[test]
    fn forced_charges_overdraw_and_refill() {
        let forced = |cost| Charge { cost, size: 5000, most: 5000 };
        let mut full_at = 0;
        assert_eq!((0..30).filter(|_| admitted(&mut full_at, 0, forced(10))).count(), 30);
        assert!(!admitted(&mut full_at, 259, Charge { most: 5000, ..EXACT }));
        assert!(admitted(&mut full_at, 260, Charge { most: 5000, ..EXACT }));
        assert!(admitted(&mut full_at, 260, forced(-5000)));
        assert_eq!(full_at, 260);
    }
}

//! The order of faults, from a seed.

use std::time::Duration;

use super::faults::{CASES, Case, LAST, LONGEST};

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns another generator, whose numbers depend on this one.
    pub fn split(&mut self) -> Self {
        Self(self.roll())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Which faults to inject
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Each fault once, one after another
    Short,
    /// Overlapping faults and long outages, until the time is over
    Long,
}

impl Profile {
    /// How long after the last fault the final resource use is measured.
    pub fn rest(self) -> Duration {
        Duration::from_secs(match self {
            Self::Short => 10,
            Self::Long => 60,
        })
    }
}

/// How many cases may run, one after another, during a long outage of the bus.
const MEANWHILE: usize = 6;

/// The faults to inject, step by step. The first case of a step overlaps with the others, which run one after another.
pub struct Schedule {
    profile: Profile,
    dice: Dice,
    /// The remaining cases; the next one is the last element.
    left: Vec<&'static Case>,
}

impl Schedule {
    pub fn new(profile: Profile, mut dice: Dice) -> Self {
        let left = deal(&mut dice);
        Self { profile, dice, left }
    }

    /// Creates a schedule of these cases, in this order.
    pub fn of(cases: &[&'static Case], dice: Dice) -> Self {
        Self { profile: Profile::Short, dice, left: cases.iter().rev().copied().collect() }
    }

    /// Returns the cases of the next step; empty at the end. The case that restores the database comes last.
    pub fn next(&mut self, elapsed: Duration, limit: Duration) -> Vec<&'static Case> {
        if self.profile == Profile::Long {
            if elapsed >= limit && self.left.first().is_some_and(|case| case.name == LAST) {
                self.left.truncate(1);
            } else if self.left.len() == 1 {
                self.left.extend(deal(&mut self.dice).split_off(1));
            }
        }
        let Some(case) = self.left.pop() else { return vec![] };
        let mut step = vec![case];
        let most = match self.profile {
            Profile::Long if case.name == LONGEST => MEANWHILE,
            Profile::Long if self.dice.below(2) == 0 => 1,
            _ => 0,
        };
        for _ in 0..most {
            let apart = |other: &&Case| ![LAST, LONGEST].contains(&other.name) && other.goes_with(case);
            match self.left.iter().rposition(apart) {
                Some(index) => step.push(self.left.remove(index)),
                None => break,
            }
        }
        step
    }
}

/// Returns all cases in a random order.
fn deal(dice: &mut Dice) -> Vec<&'static Case> {
    let (mut last, mut others) = CASES.iter().partition::<Vec<_>, _>(|case| case.name == LAST);
    dice.shuffle(&mut others);
    last.append(&mut others);
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schedule: &mut Schedule, limit: Duration) -> Vec<Vec<&'static str>> {
        let mut elapsed = Duration::ZERO;
        let mut names = Vec::new();
        loop {
            let step = schedule.next(elapsed, limit);
            if step.is_empty() {
                return names;
            }
            names.push(step.iter().map(|case| case.name).collect());
            elapsed += Duration::from_secs(20);
        }
    }

    #[test]
    fn short_schedule_has_each_case_once_in_seeded_order() {
        let short = |seed| names(&mut Schedule::new(Profile::Short, Dice::new(seed)), Duration::ZERO);
        assert_eq!(short(7), short(7));
        assert_ne!(short(7), short(8));
        let mut all = short(7).concat();
        assert_eq!((all.len(), all.last()), (CASES.len(), Some(&LAST)));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), CASES.len());
    }

    #[test]
    fn long_schedule_repeats_overlaps_and_ends() {
        let steps = names(&mut Schedule::new(Profile::Long, Dice::new(1)), Duration::from_secs(3600));
        assert!(steps.len() >= 180, "{}", steps.len());
        assert!(steps.iter().any(|step| step.len() == 2));
        let longest = steps.iter().filter(|step| step[0] == LONGEST).collect::<Vec<_>>();
        assert!(
            longest.len() > 2
                && longest.iter().any(|step| step.len() > 4 && step.iter().any(|name| name.starts_with("message-")))
        );
        assert_eq!(steps.concat().iter().filter(|name| **name == LAST).count(), 1);
        assert_eq!(steps.last().unwrap(), &[LAST]);
    }
}

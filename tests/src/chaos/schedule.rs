//! Which faults when, from a seed.

use std::time::Duration;

use super::faults::{CASES, Case, LAST, LONGEST};

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Others, which depend on these.
    pub fn split(&mut self) -> Self {
        Self(self.roll())
    }

    /// Below a bound.
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

/// How much is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Every fault once, one after another
    Short,
    /// As long as there is time: faults that overlap, and long absences
    Long,
}

impl Profile {
    /// How long after everything it is looked what processes still hold.
    pub fn rest(self) -> Duration {
        Duration::from_secs(match self {
            Self::Short => 10,
            Self::Long => 60,
        })
    }
}

/// How many cases may happen, one after another, while the bus is away for long.
const MEANWHILE: usize = 6;

/// What is broken, step by step; the first case of a step overlaps with the others, which come one after another.
pub struct Schedule {
    profile: Profile,
    dice: Dice,
    /// Cases that are still to come; the next one is the last.
    left: Vec<&'static Case>,
}

impl Schedule {
    /// From a seed.
    pub fn new(profile: Profile, mut dice: Dice) -> Self {
        let left = deal(&mut dice);
        Self { profile, dice, left }
    }

    /// These cases, in this order.
    pub fn of(cases: &[&'static Case], dice: Dice) -> Self {
        Self { profile: Profile::Short, dice, left: cases.iter().rev().copied().collect() }
    }

    /// What comes next, so long after the beginning; nothing at the end. The case that puts the database back comes last.
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

/// All cases in a random order, to be taken from the end.
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
    fn the_short_one_has_every_case_once_and_a_seed_gives_one_order() {
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
    fn the_long_one_goes_on_overlaps_and_ends() {
        let steps = names(&mut Schedule::new(Profile::Long, Dice::new(1)), Duration::from_secs(3600));
        assert!(steps.len() >= 180, "{}", steps.len());
        assert!(steps.iter().any(|step| step.len() == 2));
        let longest = steps.iter().filter(|step| step[0] == LONGEST).collect::<Vec<_>>();
        assert!(longest.len() > 2 && longest.iter().any(|step| step.len() > 4 && step.iter().any(|name| name.starts_with("message-"))));
        assert_eq!(steps.concat().iter().filter(|name| **name == LAST).count(), 1);
        assert_eq!(steps.last().unwrap(), &[LAST]);
    }
}

//! What a side has tried, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::histogram::Histogram;
use parking_lot::{Mutex, MutexGuard};

/// Counts of one side.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// What was counted since it was last taken.
#[derive(Debug, Default)]
pub struct Counts {
    /// By what was tried.
    pub acts: BTreeMap<&'static str, Acts>,
    /// Failures that the server calls `internal`.
    pub internal: u64,
}

/// All tries of one kind.
#[derive(Debug, Default, Clone)]
pub struct Acts {
    /// Those that went well.
    pub done: u64,
    /// Those that did not.
    pub failed: u64,
    /// How long those that went well took.
    pub time: Histogram,
    /// The first failure in words.
    pub fault: Option<String>,
}

impl Tally {
    /// Something went well.
    pub fn done(&self, what: &'static str, took: Duration) {
        let mut counts = self.lock();
        let acts = counts.acts.entry(what).or_default();
        acts.done += 1;
        acts.time.record(took);
    }

    /// Something happened so many times.
    pub fn count(&self, what: &'static str, times: u64) {
        self.lock().acts.entry(what).or_default().done += times;
    }

    /// Something failed.
    pub fn failed(&self, what: &'static str, why: &str) {
        let mut counts = self.lock();
        counts.internal += u64::from(why.contains("\"internal\""));
        let acts = counts.acts.entry(what).or_default();
        acts.failed += 1;
        acts.fault.get_or_insert_with(|| why.to_owned());
    }

    /// Takes note of a result.
    pub fn note<T>(&self, what: &'static str, took: Duration, result: &anyhow::Result<T>) {
        match result {
            Ok(_) => self.done(what, took),
            Err(error) => self.failed(what, &format!("{error:#}")),
        }
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock()
    }
}

impl Counts {
    /// All tries of a kind; empty when there were none.
    pub fn of(&self, what: &str) -> Acts {
        self.acts.get(what).cloned().unwrap_or_default()
    }
}

impl Acts {
    /// Of a hundred, how many went well; of none, all.
    pub fn share(&self) -> f64 {
        match self.done + self.failed {
            0 => 100.0,
            all => self.done as f64 / all as f64 * 100.0,
        }
    }

    /// The time that all but one in a hundred stayed below, in milliseconds.
    pub fn p99(&self) -> f64 {
        self.time.percentile(99.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_shares_and_the_first_fault() {
        let tally = Tally::default();
        (0..9).for_each(|_| tally.done("send", Duration::from_millis(10)));
        tally.note::<()>("send", Duration::ZERO, &Err(anyhow::anyhow!("503 {{\"code\":\"internal\"}}")));
        tally.failed("send", "later");
        tally.count("ping", 7);
        let counts = tally.take();
        let sends = counts.of("send");
        assert_eq!((sends.done, sends.failed, sends.fault.as_deref()), (9, 2, Some("503 {\"code\":\"internal\"}")));
        assert!((sends.share() - 81.8).abs() < 0.1 && (sends.p99() - 10.0).abs() < 0.2);
        assert_eq!((counts.of("ping").done, counts.of("nothing").share()), (7, 100.0));
        assert_eq!(counts.internal, 1);
        assert!(tally.take().acts.is_empty());
    }
}

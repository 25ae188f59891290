//! Counts of attempts and their results, of honest clients or of attackers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::histogram::Histogram;
use parking_lot::{Mutex, MutexGuard};

/// Counts of one side.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// Counts since they were last taken.
#[derive(Debug, Default)]
pub struct Counts {
    /// By act.
    pub acts: BTreeMap<&'static str, Acts>,
    /// Failures with the code `internal`.
    pub internal: u64,
}

/// All attempts of one act.
#[derive(Debug, Default, Clone)]
pub struct Acts {
    /// Successful attempts.
    pub done: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Durations of successful attempts.
    pub time: Histogram,
    /// The text of the first failure.
    pub fault: Option<String>,
}

impl Tally {
    /// Counts a success.
    pub fn done(&self, what: &'static str, took: Duration) {
        let mut counts = self.lock();
        let acts = counts.acts.entry(what).or_default();
        acts.done += 1;
        acts.time.record(took);
    }

    /// Counts an action `times` times.
    pub fn count(&self, what: &'static str, times: u64) {
        self.lock().acts.entry(what).or_default().done += times;
    }

    /// Counts a failure.
    pub fn failed(&self, what: &'static str, why: &str) {
        let mut counts = self.lock();
        counts.internal += u64::from(why.contains("\"internal\""));
        let acts = counts.acts.entry(what).or_default();
        acts.failed += 1;
        acts.fault.get_or_insert_with(|| why.to_owned());
    }

    /// Counts a result.
    pub fn note<T>(&self, what: &'static str, took: Duration, result: &anyhow::Result<T>) {
        match result {
            Ok(_) => self.done(what, took),
            Err(error) => self.failed(what, &format!("{error:#}")),
        }
    }

    /// Returns the counts since the last call.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock()
    }
}

impl Counts {
    /// Returns all attempts of an act; empty when there were none.
    pub fn of(&self, what: &str) -> Acts {
        self.acts.get(what).cloned().unwrap_or_default()
    }
}

impl Acts {
    /// The percentage of successes; 100 without attempts.
    pub fn share(&self) -> f64 {
        match self.done + self.failed {
            0 => 100.0,
            all => self.done as f64 / all as f64 * 100.0,
        }
    }

    /// The 99th percentile of the durations, in milliseconds.
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

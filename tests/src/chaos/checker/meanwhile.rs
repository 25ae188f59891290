//! What must continue during a fault: sends, deliveries, documented rejections.

use std::time::Duration;

use super::super::history::{At, Entry, Fault, Outcome};
use super::super::terms::Terms;
use super::Judge;

impl Judge<'_> {
    pub(super) fn meanwhile(&mut self) {
        for fault in &self.records.faults {
            self.live_delivery(fault);
            self.tries(fault);
            self.pauses(fault);
        }
    }

    /// The 99th percentile of the delivery time is within the bound.
    fn live_delivery(&mut self, fault: &Fault) {
        let Some(bound) = fault.terms.live else { return };
        let excused = self.excuses(fault, |other| other.live.is_none_or(|live| live > bound));
        let lags = self.lags.iter().filter(|(at, _)| lasts(fault, *at) && !touch(&excused, *at, *at));
        let mut lags = lags.map(|(_, lag)| *lag).collect::<Vec<_>>();
        lags.sort_unstable();
        match lags.get(lags.len() * 99 / 100) {
            None if excused.is_empty() => {
                self.violated("case", format!("{}: no message was delivered during the fault", fault.name))
            }
            Some(lag) if *lag > bound => {
                self.violated("case", format!("{}: delivery took {lag:?} during the fault", fault.name))
            }
            _ => {}
        }
    }

    /// The share of failed sends is within the bound; where sends must be rejected, they are.
    fn tries(&mut self, fault: &Fault) {
        let excused = self.excuses(fault, |other| other.fails > fault.terms.fails);
        let sends = self.records.sends.iter().filter(|send| !send.guest);
        let tries = sends.flat_map(|send| &send.attempts).filter(|attempt| lasts(fault, attempt.begun));
        let tries = tries.filter(|attempt| !touch(&excused, attempt.begun, attempt.ended)).collect::<Vec<_>>();
        let failed = tries.iter().filter(|attempt| !matches!(attempt.outcome, Outcome::Acked(_))).collect::<Vec<_>>();
        if failed.len() * 100 > tries.len() * fault.terms.fails {
            let (all, first) = (tries.len(), failed[0]);
            self.violated(
                "case",
                format!(
                    "{}: {} of {all} attempts failed during the fault, such as: {first:?}",
                    fault.name,
                    failed.len()
                ),
            );
        }
        let refused = failed.iter().any(|attempt| matches!(attempt.outcome, Outcome::Refused(503 | 504, _)));
        if fault.terms.refuses && excused.is_empty() && !refused {
            self.violated("case", format!("{}: no request was rejected during the fault", fault.name));
        }
    }

    /// There is no long gap between acknowledgements or deliveries.
    fn pauses(&mut self, fault: &Fault) {
        let Some(bound) = fault.terms.pause else { return };
        let excused = self.excuses(fault, |other| other.pause.is_none_or(|pause| pause > bound));
        let sends = self.records.sends.iter().filter(|send| !send.guest);
        let acks = sends.flat_map(|send| send.acks()).map(|(at, _)| at).collect();
        let receivers = self.records.receivers.iter().filter(|receiver| !receiver.restless);
        let entries = receivers.flat_map(|receiver| &receiver.entries);
        let received = entries.filter(|(_, entry)| matches!(entry, Entry::Live(_))).map(|(at, _)| *at).collect();
        for (what, moments) in [("acknowledged", acks), ("delivered", received)] {
            let pause = longest_pause(fault, moments, &excused);
            if pause > bound {
                self.violated("case", format!("{}: no message was {what} for {pause:?} during the fault", fault.name));
            }
        }
    }

    /// Returns the times when other faults, or their after-effects, allow more than this fault.
    fn excuses(&self, fault: &Fault, lax: impl Fn(&Terms) -> bool) -> Vec<(At, At)> {
        let others = self.records.faults.iter().filter(|other| !std::ptr::eq(*other, fault) && lax(&other.terms));
        let spans = others.map(|other| (other.from, other.healed + other.terms.recovers));
        spans.filter(|(from, to)| *from <= fault.healed && *to >= fault.from).collect()
    }
}

fn lasts(fault: &Fault, at: At) -> bool {
    (fault.from..fault.healed).contains(&at)
}

fn touch(spans: &[(At, At)], begin: At, end: At) -> bool {
    spans.iter().any(|(from, to)| *from <= end && begin <= *to)
}

fn longest_pause(fault: &Fault, mut moments: Vec<At>, excused: &[(At, At)]) -> Duration {
    moments.retain(|at| lasts(fault, *at));
    moments.extend([fault.from, fault.healed]);
    moments.sort_unstable();
    let pauses = moments.windows(2).filter(|pair| !touch(excused, pair[0], pair[1])).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap_or_default()
}

//! I7: the time from the end of a fault until the system is healthy.

use super::super::history::{At, Entry, Outcome};
use super::super::recorder::SLOW;
use super::Judge;

impl Judge<'_> {
    pub(super) fn recovery(&mut self) {
        for fault in &self.records.faults {
            // After-effects cannot be attributed to one fault while another fault is active.
            let others = || self.records.faults.iter().filter(|other| !std::ptr::eq(*other, fault));
            if others().any(|other| other.from <= fault.healed && other.healed > fault.healed) {
                continue;
            }
            let next = others().map(|other| other.from).filter(|from| *from > fault.healed).min();
            let recovered = self.last_trouble(fault.healed, next.unwrap_or(self.records.ended));
            let took = recovered.saturating_sub(fault.healed);
            self.verdict.recoveries.push((fault.name, took));
            if took > fault.terms.recovers {
                self.violated(
                    "I7",
                    format!("{}: healed at {:?}, but healthy only {took:?} later", fault.name, fault.healed),
                );
            }
        }
    }

    /// The last time in the period at which a request begun in the period failed or was slow, an event was late, or a
    /// receiver returned. Later outcomes are caused by the next fault.
    fn last_trouble(&self, from: At, to: At) -> At {
        let window = from..to;
        let sends = self.records.sends.iter().filter(|send| !send.guest);
        let tries = sends.flat_map(|send| &send.attempts).filter(|attempt| window.contains(&attempt.begun));
        let failed = tries.filter(|attempt| {
            let refused = attempt.ended < to && !matches!(attempt.outcome, Outcome::Acked(_));
            refused || attempt.ended.min(to) - attempt.begun > SLOW
        });
        let late =
            self.lags.iter().filter(|(at, lag)| window.contains(at) && (*lag).min(at.saturating_sub(from)) > SLOW);
        let receivers = self.records.receivers.iter().filter(|receiver| !receiver.restless);
        let entries = receivers.flat_map(|receiver| &receiver.entries);
        let returns = entries.filter(|(at, entry)| window.contains(at) && matches!(entry, Entry::Joined { .. }));
        let moments = failed
            .map(|attempt| attempt.ended.min(to))
            .chain(late.map(|(at, _)| *at))
            .chain(returns.map(|(at, _)| *at));
        moments.max().unwrap_or(from)
    }
}

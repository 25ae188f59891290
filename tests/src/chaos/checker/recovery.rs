//! I7: how long after a fault was healed all was as before.

use super::super::history::{At, Entry, Outcome, SLOW};
use super::Judge;

impl Judge<'_> {
    pub(super) fn recovery(&mut self) {
        for fault in &self.records.faults {
            // Whose traces they are cannot be said while something else is broken.
            let others = || self.records.faults.iter().filter(|other| !std::ptr::eq(*other, fault));
            if others().any(|other| other.from <= fault.healed && other.healed > fault.healed) {
                continue;
            }
            let next = others().map(|other| other.from).filter(|from| *from > fault.healed).min();
            let recovered = self.last_trouble(fault.healed, next.unwrap_or(self.records.ended));
            let took = recovered.saturating_sub(fault.healed);
            self.verdict.recoveries.push((fault.name, took));
            if took > fault.terms.recovers {
                self.violated("I7", format!("{}: healed at {:?}, and all was well {took:?} later", fault.name, fault.healed));
            }
        }
    }

    /// The last moment in that time at which a request begun in it turned out to fail or be slow, an event was late, or a receiver
    /// came back. What a request comes to afterwards is of the next fault's making.
    fn last_trouble(&self, from: At, to: At) -> At {
        let window = from..to;
        let tries = self.records.sends.iter().flat_map(|send| &send.attempts).filter(|attempt| window.contains(&attempt.begun));
        let failed = tries.filter(|attempt| {
            let refused = attempt.ended < to && !matches!(attempt.outcome, Outcome::Acked(_));
            refused || attempt.ended.min(to) - attempt.begun > SLOW
        });
        let late = self.lags.iter().filter(|(at, lag)| window.contains(at) && (*lag).min(at.saturating_sub(from)) > SLOW);
        let entries = self.records.receivers.iter().flat_map(|receiver| &receiver.entries);
        let returns = entries.filter(|(at, entry)| window.contains(at) && matches!(entry, Entry::Joined { .. }));
        let moments = failed.map(|attempt| attempt.ended.min(to)).chain(late.map(|(at, _)| *at)).chain(returns.map(|(at, _)| *at));
        moments.max().unwrap_or(from)
    }
}

//! I9: rejections are documented and in time; and no request fails while there is no fault.

use std::time::Duration;

use super::super::history::{Attempt, Fault, Outcome};
use super::Judge;

/// Time limit of a request: its deadline, doubled because the machine is busy with a whole cluster.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// All documented rejections.
const REFUSALS: &[(u64, &str)] = &[
    (400, "invalid_request"),
    (401, "unauthorized"),
    (401, "invalid_credentials"),
    (403, "forbidden"),
    (404, "not_found"),
    (409, "username_taken"),
    (409, "room_name_taken"),
    (409, "conflict"),
    (413, "too_large"),
    (416, "range_not_satisfiable"),
    (429, "rate_limited"),
    (503, "unavailable"),
    (504, "timeout"),
];

impl Judge<'_> {
    pub(super) fn requests(&mut self) {
        let records = self.records;
        for send in &records.sends {
            for attempt in &send.attempts {
                self.request(&send.key, attempt);
                let failed = !matches!(attempt.outcome, Outcome::Acked(_));
                if failed && !records.faults.iter().any(|fault| may_hurt(fault, attempt)) {
                    self.violated("I7", format!("{} failed while there was no fault: {attempt:?}", send.key));
                }
            }
        }
        records.calls.iter().for_each(|(what, attempt)| self.request(what, attempt));
    }

    fn request(&mut self, what: &str, attempt: &Attempt) {
        let silenced = self.is_mute(attempt.begun, attempt.ended);
        match &attempt.outcome {
            Outcome::Refused(status, code) if !REFUSALS.contains(&(*status, code.as_str())) => {
                self.violated("I9", format!("{what} was rejected at {:?} with {status} {code}", attempt.ended));
            }
            Outcome::Silent if !silenced => {
                self.violated("I9", format!("{what}, begun at {:?}, got no answer", attempt.begun));
            }
            Outcome::Acked(_) | Outcome::Done | Outcome::Refused(..)
                if !silenced && attempt.ended - attempt.begun > ANSWER_LIMIT =>
            {
                self.violated("I9", format!("{what} was answered after {:?}", attempt.ended - attempt.begun));
            }
            _ => {}
        }
        let failed = !matches!(attempt.outcome, Outcome::Acked(_) | Outcome::Done);
        let mut sparing = self
            .records
            .faults
            .iter()
            .filter(|fault| fault.terms.spares_rest && overlap(fault, attempt, Duration::ZERO));
        if let Some(fault) = sparing.next().filter(|_| failed && attempt.socket.is_none()) {
            self.violated("I9", format!("{what} failed during {}: {attempt:?}", fault.name));
        }
    }
}

fn may_hurt(fault: &Fault, attempt: &Attempt) -> bool {
    overlap(fault, attempt, fault.terms.recovers)
}

fn overlap(fault: &Fault, attempt: &Attempt, traces: Duration) -> bool {
    fault.from <= attempt.ended && attempt.begun <= fault.healed + traces
}

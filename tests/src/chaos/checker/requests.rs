//! I9: rejections are documented and in time; and no request fails while there is no fault.

use std::time::Duration;

use super::super::history::{Attempt, Fault, Outcome, What};
use super::Judge;

/// Time limit of a request: its deadline, doubled because the machine is busy with a whole cluster.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time limit of a request with a password, whose deadline is 8 s.
const PASSWORD_LIMIT: Duration = Duration::from_secs(10);

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
                self.request(&send.key, attempt, ANSWER_LIMIT);
                // The right to post is judged elsewhere.
                if !(send.guest && attempt.outcome.is_hidden()) {
                    self.calm(&send.key, attempt);
                }
            }
        }
        for act in &records.acts {
            let what = format!("{:?}", act.what);
            let limit = if act.what.has_password() { PASSWORD_LIMIT } else { ANSWER_LIMIT };
            for attempt in &act.attempts {
                // A rejection can be the wanted outcome: the first attempt of a repeated act had succeeded, or a
                // suspended user must not log in.
                if act.known == Some(attempt.ended) {
                    self.request(&what, &Attempt { outcome: Outcome::Done, ..attempt.clone() }, limit);
                    continue;
                }
                self.request(&what, attempt, limit);
                // Hostile clients may delay requests with passwords.
                if !act.is_of_sessions() {
                    self.calm(&what, attempt);
                }
            }
            // A client may give up a reaction.
            if act.known.is_none() && !matches!(act.what, What::Reaction { .. }) {
                self.violated("I7", format!("{what} was never acknowledged: {:?}", act.attempts.last()));
            }
        }
        records.calls.iter().for_each(|(what, attempt)| self.request(what, attempt, ANSWER_LIMIT));
        records.reads.iter().for_each(|read| self.request("a page of history", &read.attempt, ANSWER_LIMIT));
    }

    /// No request fails while there is no fault.
    fn calm(&mut self, what: &str, attempt: &Attempt) {
        let failed = !matches!(attempt.outcome, Outcome::Acked(_) | Outcome::Done);
        if failed && !self.records.faults.iter().any(|fault| may_hurt(fault, attempt)) {
            self.violated("I7", format!("{what} failed while there was no fault: {attempt:?}"));
        }
    }

    fn request(&mut self, what: &str, attempt: &Attempt, limit: Duration) {
        let silenced = self.is_mute(attempt.begun, attempt.ended);
        match &attempt.outcome {
            Outcome::Refused(status, code) if !REFUSALS.contains(&(*status, code.as_str())) => {
                self.violated("I9", format!("{what} was rejected at {:?} with {status} {code}", attempt.ended));
            }
            Outcome::Silent if !silenced => {
                self.violated("I9", format!("{what}, begun at {:?}, got no answer", attempt.begun));
            }
            Outcome::Acked(_) | Outcome::Done | Outcome::Refused(..)
                if !silenced && attempt.ended - attempt.begun > limit =>
            {
                self.violated("I9", format!("{what} was answered after {:?}", attempt.ended - attempt.begun));
            }
            _ => {}
        }
        let failed = !matches!(attempt.outcome, Outcome::Acked(_) | Outcome::Done) && !attempt.outcome.is_hidden();
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

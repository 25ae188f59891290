//! I1 for reactions. A reaction is a state that a user sets: of the acts on one name, the last to commit stands. An act
//! without an acknowledgement may stand or not, now or later.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use uuid::Uuid;

use super::super::history::{Act, Outcome, What};
use super::super::message::Op;
use super::Judge;

/// One user's reaction of one name to one message of a room.
type Reaction<'a> = (Uuid, u64, Uuid, &'a str);

impl Judge<'_> {
    pub(super) fn reactions(&mut self) {
        let records = self.records;
        let (mut found, mut deleted) = (BTreeMap::<Reaction<'_>, Vec<(u64, bool)>>::new(), HashSet::new());
        for (room, history) in &records.history {
            for stored in history {
                let Some((target, op)) = stored.act else { continue };
                if op == Op::Delete {
                    deleted.insert((*room, target));
                }
                for toggle in &stored.toggles {
                    let reaction = (*room, target, toggle.user, toggle.name.as_str());
                    found.entry(reaction).or_default().push((stored.seen.seq, toggle.on));
                }
            }
        }
        let mut wanted = BTreeMap::<Reaction<'_>, Vec<(&Act, bool)>>::new();
        for act in &records.acts {
            let What::Reaction { room, target, toggle } = &act.what else { continue };
            self.verdict.counts.reactions += usize::from(act.known.is_some());
            wanted.entry((*room, *target, toggle.user, &toggle.name)).or_default().push((act, toggle.on));
        }
        let reactions = found.keys().chain(wanted.keys()).copied().collect::<BTreeSet<_>>();
        for reaction in reactions {
            let found = found.get(&reaction).map_or(&[][..], Vec::as_slice);
            let wanted = wanted.get(&reaction).map_or(&[][..], Vec::as_slice);
            if let Some((seq, on)) = found.iter().find(|(_, on)| wanted.iter().all(|(_, wanted)| wanted != on)) {
                self.misreacted("I5", format!("{reaction:?}: no act set it to {on}, but change {seq} did"));
                continue;
            }
            self.toggles(reaction, found);
            if !deleted.contains(&(reaction.0, reaction.1)) {
                self.last_stands(reaction, found, wanted);
            }
        }
    }

    /// Each change of a reaction changes it: a repeat writes nothing.
    fn toggles(&mut self, reaction: Reaction<'_>, found: &[(u64, bool)]) {
        let mut stands = false;
        for (seq, on) in found {
            if stands == *on {
                self.misreacted("I5", format!("{reaction:?}: change {seq} sets it to {on} again: {found:?}"));
                return;
            }
            stands = *on;
        }
    }

    /// The reaction is what the last act made of it.
    fn last_stands(&mut self, reaction: Reaction<'_>, found: &[(u64, bool)], wanted: &[(&Act, bool)]) {
        let stands = found.last().is_some_and(|(_, on)| *on);
        let mut may_be = wanted.iter().filter(|(act, _)| may_be_last(act, wanted)).map(|(_, on)| *on);
        let untouched = wanted.iter().all(|(act, _)| act.known.is_none());
        if !(may_be.any(|on| on == stands) || untouched && !stands) {
            let last = &wanted[wanted.len().saturating_sub(3)..];
            self.misreacted("I1", format!("{reaction:?} is {stands} after {found:?}; the last acts were {last:?}"));
        }
    }

    fn misreacted(&mut self, promise: &'static str, evidence: String) {
        self.verdict.counts.misreacted += 1;
        self.violated(promise, evidence);
    }
}

/// Whether an act may have been the last to commit: no act that stands began after its end, or one of its attempts has
/// no answer and may have committed later.
fn may_be_last(act: &Act, all: &[(&Act, bool)]) -> bool {
    let is_open = |outcome: &Outcome| match outcome {
        Outcome::Silent | Outcome::Broken => true,
        Outcome::Refused(_, code) => code == "timeout",
        Outcome::Acked(_) | Outcome::Done => false,
    };
    let Some(known) = act.known else { return true };
    act.attempts.iter().any(|attempt| is_open(&attempt.outcome))
        || !all.iter().any(|(other, _)| other.known.is_some() && other.begun() > known)
}

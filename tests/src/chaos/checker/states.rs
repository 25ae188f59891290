//! Changes of messages: each is in the log once and in order (I1, I3), and the fold of the log is the state that
//! history has and that every client sees (I5).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::super::history::{Act, At, Outcome, What};
use super::super::message::{Op, Partial, Replies, Seen, State, Values, tally, text};
use super::Judge;
use super::tallies;

/// The user who changes a message of a room.
type Hand = (Uuid, u64, Uuid);

/// A change in the log, with its `seq`.
type Step = (u64, Made);

/// What a change makes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// With the digest of an edit's text; `None` if no client knows the text.
    Act(Op, Option<u64>),
    /// The new counts of reactions or replies.
    Counts(Values),
}

/// The states of messages, by room and `seq`.
#[derive(Default)]
pub struct States {
    /// The changes of each message, in order.
    changes: HashMap<(Uuid, u64), Vec<Step>>,
    /// Every state that was seen, also by revision.
    seen: HashMap<(Uuid, u64, u64), State>,
}

impl States {
    fn of(&self, room: Uuid, seq: u64) -> &[Step] {
        self.changes.get(&(room, seq)).map_or(&[], Vec::as_slice)
    }
}

/// Returns a state with what the changes up to its revision make of it, as far as clients know.
fn folded(changes: &[Step], state: State) -> State {
    let mut right = State { deleted: false, pinned: false, reactions: tally([]), replies: Replies::default(), ..state };
    for (_, made) in changes.iter().take_while(|(seq, _)| *seq <= state.revision) {
        match made {
            Made::Act(Op::Edit, content) => right.text = content.unwrap_or(state.text),
            Made::Act(Op::Delete, _) => {
                right = State { deleted: true, pinned: false, text: text(""), reactions: tally([]), ..right };
            }
            Made::Act(Op::Pin, _) => right.pinned = true,
            Made::Act(Op::Unpin, _) => right.pinned = false,
            Made::Act(Op::React, _) => {}
            Made::Counts(Values::Reactions(reactions)) => right.reactions = *reactions,
            Made::Counts(Values::Replies(replies)) => right.replies = *replies,
        }
    }
    right
}

impl Judge<'_> {
    pub(super) fn states(&mut self) {
        self.acts_on_messages();
        self.counts();
        self.folds();
        self.presents();
        self.answers();
    }

    /// The changes in the log are those that clients made, in their order.
    fn acts_on_messages(&mut self) {
        let records = self.records;
        let mut found = BTreeMap::<Hand, Vec<(u64, Op)>>::new();
        for (room, history) in &records.history {
            for stored in history {
                let Some((target, op)) = stored.act.filter(|(_, op)| *op != Op::React) else { continue };
                found.entry((*room, target, stored.sender)).or_default().push((stored.seen.seq, op));
            }
        }
        let mut wanted = BTreeMap::<Hand, Vec<(&Act, Op)>>::new();
        for act in &records.acts {
            let What::Message { room, target, by, op, .. } = &act.what else { continue };
            self.verdict.counts.changes += usize::from(act.known.is_some());
            wanted.entry((*room, *target, *by)).or_default().push((act, *op));
        }
        let hands = found.keys().chain(wanted.keys()).copied().collect::<BTreeSet<_>>();
        for hand @ (room, target, _) in hands {
            let (found, wanted) = (found.remove(&hand).unwrap_or_default(), wanted.remove(&hand).unwrap_or_default());
            self.compare(&format!("message {target} of room {room}"), room, &wanted, &found);
            let text_of = |n: usize| match &wanted.get(n)?.0.what {
                What::Message { text: Some(content), .. } => Some(text(content)),
                _ => None,
            };
            let changes = self.states.changes.entry((room, target)).or_default();
            changes.extend(found.iter().enumerate().map(|(n, (seq, op))| (*seq, Made::Act(*op, text_of(n)))));
        }
    }

    /// Adds the counts of reactions and replies that the log gives its messages.
    fn counts(&mut self) {
        let records = self.records;
        for (room, history) in &records.history {
            self.verdict.counts.replies += history.iter().filter(|stored| stored.thread.is_some()).count();
            for (seq, target, values) in tallies::of(history) {
                self.states.changes.entry((*room, target)).or_default().push((seq, Made::Counts(values)));
            }
        }
        self.states.changes.values_mut().for_each(|changes| changes.sort_unstable_by_key(|(seq, _)| *seq));
    }

    /// The final state of each message is what its changes in the log make of it.
    fn folds(&mut self) {
        let records = self.records;
        for (room, history) in &records.history {
            for stored in history {
                let (seq, Some(state)) = (stored.seen.seq, stored.seen.state) else { continue };
                let changes = self.states.of(*room, seq);
                let last = changes.last().map_or(seq, |(seq, _)| *seq);
                let right = State { revision: last, ..folded(changes, state) };
                if state != right {
                    let evidence = format!("message {seq} of room {room} is {state:?} after {changes:?}");
                    self.differs(state, right, evidence);
                }
                self.states.seen.insert((*room, seq, state.revision), state);
            }
        }
    }

    /// A page of history has the messages and room events of the log, in the same state.
    fn presents(&mut self) {
        let records = self.records;
        for (room, present) in &records.present {
            let history = records.history.get(room).map_or(&[][..], Vec::as_slice);
            let items = history.iter().filter(|stored| stored.act.is_none()).map(|stored| stored.seen);
            if let Some((item, shown)) = items.clone().zip(present).find(|(item, shown)| item != *shown) {
                self.misfolded(format!("history has {shown:?}, and the log {item:?}"));
            } else if items.clone().count() != present.len() {
                let (items, shown) = (items.count(), present.len());
                self.misfolded(format!("history of room {room} has {shown} items, and the log {items}"));
            }
        }
    }

    /// The answers to acts show the message in a state that it had.
    fn answers(&mut self) {
        let records = self.records;
        for act in records.acts.iter().filter(|act| matches!(act.what, What::Message { .. })) {
            for attempt in &act.attempts {
                let Outcome::Acked(seen) = &attempt.outcome else { continue };
                self.observe(&format!("{:?}", act.what), attempt.ended, seen);
            }
        }
    }

    /// I5: the state of a message that a client sees is one that the log gave it, and all clients see the same under
    /// the same revision.
    pub(super) fn observe(&mut self, name: &str, at: At, seen: &Seen) {
        let (Seen { room, seq, .. }, Some(state)) = (*seen, seen.state) else { return };
        let changes = self.states.of(room, seq);
        let exists = state.revision == seq || changes.iter().any(|(change, _)| *change == state.revision);
        let folded = folded(changes, state);
        let known = *self.states.seen.entry((room, seq, state.revision)).or_insert(state);
        let what = format!("{name} received {state:?} of message {seq} of room {room} at {at:?}");
        if !exists {
            self.misfolded(format!("{what}, but there is no such change"));
        } else if let Some(right) = [known, folded].into_iter().find(|right| *right != state) {
            self.differs(state, right, format!("{what} instead of {right:?}"));
        }
    }

    /// I5, for an event that does not show the whole message.
    pub(super) fn observe_partial(&mut self, name: &str, at: At, partial: &Partial) {
        let Partial { room, seq, id, revision, values } = *partial;
        let stored = self.records.history.get(&room).and_then(|history| history.get((seq as usize).checked_sub(1)?));
        let Some(state) = stored.filter(|stored| stored.seen.id == id).and_then(|stored| stored.seen.state) else {
            self.verdict.counts.invented += 1;
            self.violated("I5", format!("{name} received {partial:?} at {at:?}, of a message that is not in history"));
            return;
        };
        let changes = self.states.of(room, seq);
        let exists = changes.iter().any(|(change, _)| *change == revision);
        let right = folded(changes, State { revision, ..state });
        let shown = match values {
            Values::Reactions(reactions) => State { reactions, ..right },
            Values::Replies(replies) => State { replies, ..right },
        };
        if !exists {
            self.misfolded(format!("{name} received {partial:?} at {at:?}, but there is no such change"));
        } else if shown != right {
            self.differs(shown, right, format!("{name} received {partial:?} at {at:?} instead of {right:?}"));
        }
    }

    /// I4: a client that applied the one rule holds the final states.
    pub(super) fn held(&mut self, name: &str, room: Uuid, held: &BTreeMap<u64, State>) {
        let records = self.records;
        let history = records.history.get(&room).map_or(&[][..], Vec::as_slice);
        for (seq, state) in held {
            let last = history.get(*seq as usize - 1).and_then(|stored| stored.seen.state);
            if let Some(last) = last.filter(|last| last != state) {
                let evidence = format!("{name} has message {seq} of room {room} as {state:?}, and history {last:?}");
                self.count(*state, last);
                self.violated("I4", evidence);
            }
        }
    }

    /// Returns the messages between two numbers that were changed between two others; each second number included.
    pub(super) fn changed_between(&self, room: Uuid, of: (u64, u64), at: (u64, u64)) -> BTreeSet<u64> {
        let history = self.records.history.get(&room).map_or(&[][..], Vec::as_slice);
        let span = history.get(at.0 as usize..(at.1 as usize).min(history.len())).unwrap_or_default();
        let root_of = |target: u64| history.get((target as usize).checked_sub(1)?)?.thread;
        let targets = span.iter().flat_map(|stored| {
            let target = stored.act.map(|(target, _)| target);
            let deleted = stored.act.filter(|(_, op)| *op == Op::Delete).and_then(|(target, _)| root_of(target));
            [target, deleted, stored.thread]
        });
        let targets = targets.flatten();
        targets.filter(|target| of.0 < *target && *target <= of.1).collect()
    }

    fn differs(&mut self, state: State, right: State, evidence: String) {
        self.count(state, right);
        self.violated("I5", evidence);
    }

    /// Counts a wrong state by what is wrong. A state that is only old is wrong in what a newer one changes.
    fn count(&mut self, state: State, right: State) {
        let counts = &mut self.verdict.counts;
        let State { revision, reactions, replies, .. } = right;
        if (State { revision, reactions, replies, ..state }) != (State { revision, ..right }) {
            counts.misfolded += 1;
        } else if state.reactions != reactions {
            counts.misreacted += 1;
        } else if state.replies != replies {
            counts.misreplied += 1;
        } else {
            counts.misfolded += 1;
        }
    }

    fn misfolded(&mut self, evidence: String) {
        self.verdict.counts.misfolded += 1;
        self.violated("I5", evidence);
    }
}

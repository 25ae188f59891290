//! I1 and I3 for changes of rooms: an acknowledged change is in history once, in order, and the room service lists the
//! members that the log has.

use std::fmt::Debug;

use uuid::Uuid;

use super::super::access::{Change, Ledger, Role};
use super::super::history::{Act, At, Outcome, What};
use super::Judge;

/// How many changes before and after the first difference the evidence shows.
const AROUND: usize = 4;

impl Judge<'_> {
    pub(super) fn changes(&mut self) {
        let records = self.records;
        for (room, opening) in &records.openings {
            let history = records.history.get(room).map_or(&[][..], Vec::as_slice);
            let found = history.iter().filter_map(|stored| Some((stored.seen.seq, stored.change.clone()?)));
            let found = found.collect::<Vec<_>>();
            self.changes_of(*room, &found);
            let ledger = Ledger::new(*opening, found);
            self.members(*room, &ledger);
            self.ledgers.insert(*room, ledger);
        }
        let counts = &mut self.verdict.counts;
        for act in records.known_acts() {
            match &act.what {
                What::Room { change: Change::Left { .. }, .. } => counts.removals += 1,
                What::Room { change: Change::Roles(_), .. } => counts.role_changes += 1,
                What::Room { change: Change::Visibility { .. }, .. } => counts.visibility_changes += 1,
                What::LogOut | What::LogOutEverywhere => counts.logouts += 1,
                What::ChangePassword => counts.password_changes += 1,
                What::Suspend => counts.suspensions += 1,
                What::Room { change: Change::Joined { .. }, .. }
                | What::Message { .. }
                | What::Reaction { .. }
                | What::LogIn
                | What::LogInSuspended
                | What::Restore => {}
            }
        }
        for act in records.acts.iter().filter(|act| act.what == What::LogInSuspended) {
            if let Some(entered) = act.attempts.iter().find(|attempt| attempt.outcome == Outcome::Done) {
                self.verdict.counts.trespassed += 1;
                self.violated("I6", format!("a suspended user logged in: {entered:?}"));
            }
        }
    }

    /// The changes in history are those that clients made, in the same order: each room is changed by one client at a
    /// time, which waits for the outcome.
    fn changes_of(&mut self, room: Uuid, found: &[(u64, Change)]) {
        let wanted = self.records.acts.iter().filter_map(|act| match &act.what {
            What::Room { room: of, change } if *of == room => Some((act, change.clone())),
            _ => None,
        });
        let wanted = wanted.collect::<Vec<_>>();
        self.compare(&format!("room {room}"), room, &wanted, found);
    }

    /// I1 and I3: acts that were made one after another are in the log once and in the same order. Only the last one may
    /// have an unknown outcome.
    pub(super) fn compare<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        room: Uuid,
        wanted: &[(&Act, T)],
        found: &[(u64, T)],
    ) {
        let pairs = wanted.iter().zip(found).take_while(|((_, wanted), (_, found))| wanted == found);
        let mut equal = 0;
        for ((act, _), (seq, _)) in pairs {
            equal += 1;
            self.changed.insert((room, *seq), (act.begun(), act.known.unwrap_or(At::MAX)));
            self.acked.extend(act.known.map(|known| ((room, *seq), known)));
        }
        let missing = wanted[equal..].iter().find(|(act, _)| act.known.is_some());
        let promise = match (missing, found.get(equal)) {
            (None, None) => return,
            (Some(_), None) => {
                self.verdict.counts.lost += 1;
                "I1"
            }
            (None, Some(_)) => {
                self.verdict.counts.repeated += 1;
                "I1"
            }
            (Some(_), Some(_)) => {
                self.verdict.counts.reordered += 1;
                "I3"
            }
        };
        let (from, to) = (equal.saturating_sub(AROUND), equal + AROUND + 1);
        let (wanted, found) = (&wanted[from..wanted.len().min(to)], &found[from..found.len().min(to)]);
        let list = |items: Vec<String>| items.join("\n      ");
        let wanted = list(wanted.iter().map(|(act, _)| format!("{act:?}")).collect());
        let found = list(found.iter().map(|change| format!("{change:?}")).collect());
        let which = format!("{what}: change {equal} differs. Changes from {from} on were");
        self.violated(promise, format!("{which}\n      {wanted}\n    and history has\n      {found}"));
    }

    /// The room has one owner, and the room service and the log have the same members.
    fn members(&mut self, room: Uuid, ledger: &Ledger) {
        let Some(listed) = self.records.members.get(&room) else { return };
        let owners = listed.values().filter(|role| **role == Role::Owner).count();
        if owners != 1 {
            self.violated("I1", format!("room {room} has {owners} owners: {listed:?}"));
        }
        let members = ledger.members();
        if *listed != members {
            self.violated("I1", format!("room {room} has the members {listed:?}, and by its log {members:?}"));
        }
    }
}

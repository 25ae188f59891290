//! Each receiver has exactly the history since its first join: each message once, in order.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::super::access::Rights;
use super::super::history::{At, Entry, Fault, Receiver};
use super::super::message::{Partial, Seen, State, Values};
use super::Judge;

/// Within this time the last event of a quiet room arrives even if its hint was lost (I4).
const DELIVERY_LIMIT: Duration = Duration::from_secs(3);
/// After this time no event is delivered to a session that has ended (I6).
const LOGGED_OUT: Duration = Duration::from_secs(5);

/// The state of a room at one receiver.
#[derive(Default)]
struct RoomState {
    /// The highest number that the receiver has; from the first join on without gaps.
    upto: u64,
    /// Whether the socket is in the room.
    joined: bool,
    /// The head of the last join.
    base: u64,
    /// The rights of the user in the room.
    rights: Rights,
    /// Whether the receiver had to discard its messages because the database was restored. Earlier messages belong to a
    /// log that no longer exists.
    forgotten: bool,
    /// The messages that the receiver has, by `seq`.
    held: BTreeMap<u64, State>,
}

impl RoomState {
    /// Applies the one rule for clients to a message that the receiver may have.
    fn fold(&mut self, seen: &Seen) {
        if let (Some(held), Some(state)) = (self.held.get_mut(&seen.seq), seen.state)
            && held.revision < state.revision
        {
            *held = state;
        }
    }

    /// Applies the same rule to an event that does not show the whole message.
    fn fold_partial(&mut self, partial: &Partial) {
        if let Some(held) = self.held.get_mut(&partial.seq).filter(|held| held.revision < partial.revision) {
            held.revision = partial.revision;
            match partial.values {
                Values::Reactions(reactions) => held.reactions = reactions,
                Values::Replies(replies) => held.replies = replies,
            }
        }
    }

    /// Adds a message, which the receiver may have.
    fn add(&mut self, seen: &Seen) {
        self.fold(seen);
        if let Some(state) = seen.state {
            self.held.entry(seen.seq).or_insert(state);
        }
    }
}

impl Judge<'_> {
    pub(super) fn receivers(&mut self) {
        let records = self.records;
        for receiver in &records.receivers {
            self.receiver(receiver);
        }
        let mut lags = self.lags.iter().map(|(_, lag)| *lag).collect::<Vec<_>>();
        lags.sort_unstable();
        let rank = |percent: usize| lags.get(lags.len() * percent / 100).copied().unwrap_or_default();
        self.verdict.lag = (rank(50), rank(99));
    }

    fn receiver(&mut self, receiver: &Receiver) {
        let name = &receiver.name;
        let mut rooms = HashMap::<Uuid, RoomState>::new();
        // Messages from before the last join or recovery may arrive after it.
        let mut back = At::ZERO;
        let new = |judge: &Self, room| RoomState { rights: judge.rights(room, receiver.user), ..RoomState::default() };
        let due = receiver.logged_out.map(|ended| self.end_of_session(ended));
        for (at, entry) in &receiver.entries {
            let received = !matches!(entry, Entry::Opened | Entry::Closed | Entry::Recovered);
            if received && due.is_some_and(|due| *at > due) {
                self.verdict.counts.outlived += 1;
                let ended = receiver.logged_out;
                self.violated("I6", format!("{name} received {entry:?} at {at:?}, but its session ended at {ended:?}"));
            }
            match entry {
                Entry::Opened | Entry::Closed => rooms.values_mut().for_each(|state| state.joined = false),
                Entry::Recovered => {
                    self.verdict.counts.recovered += 1;
                    rooms.values_mut().for_each(|state| state.joined = true);
                    back = *at;
                }
                Entry::Joined { room, after, from, last_seq, reset, messages, changed } => {
                    let state = rooms.entry(*room).or_insert_with(|| new(self, *room));
                    state.joined = true;
                    state.upto = *last_seq;
                    state.base = *last_seq;
                    state.forgotten |= *reset;
                    let out = state.rights.outs.iter().find(|out| out.covers(*last_seq));
                    if let Some(out) = out.filter(|_| !self.is_undone_at(*at, state.forgotten)) {
                        self.verdict.counts.leaked += 1;
                        self.violated(
                            "I6",
                            format!("{name} joined room {room} at {at:?} with head {last_seq}: {out:?}"),
                        );
                    }
                    let restored = self.records.restored.is_some_and(|restored| restored.copied < *at);
                    if *reset && !restored {
                        self.violated(
                            "I4",
                            format!(
                                "{name} had to discard room {room} at {at:?}, but the room's log was never restored"
                            ),
                        );
                    }
                    if *reset {
                        state.held.clear();
                    }
                    messages.iter().for_each(|seen| state.add(seen));
                    changed.iter().for_each(|seen| state.fold(seen));
                    let first = after.filter(|_| !*reset);
                    let excused = !state.forgotten;
                    self.joined(name, *at, *room, (first, *last_seq), messages, excused);
                    self.caught_up(name, *at, *room, (*from, first, *last_seq), changed, excused);
                    back = *at;
                }
                Entry::Live(seen) => {
                    let state = rooms.entry(seen.room).or_insert_with(|| new(self, seen.room));
                    let excused = !state.forgotten;
                    let cut = state.rights.cuts.iter().find(|cut| state.base < cut.at && cut.at <= seen.seq).copied();
                    let cut = cut.filter(|_| !self.is_undone_at(*at, state.forgotten));
                    if let Some(cut) = cut.filter(|cut| cut.first <= seen.seq) {
                        self.verdict.counts.leaked += 1;
                        self.violated("I6", format!("{name} received {seen:?} at {at:?}, after {cut:?}"));
                        state.upto = state.upto.max(seen.seq);
                        continue;
                    }
                    state.add(seen);
                    self.live(name, *at, seen, state, back);
                    // After its removal, the user's socket must join again.
                    state.joined &= cut.is_none();
                    self.holds(name, *at, seen, excused);
                }
                Entry::Changed(seen) => {
                    let state = rooms.entry(seen.room).or_insert_with(|| new(self, seen.room));
                    state.fold(seen);
                    let excused = !state.forgotten;
                    self.stands(name, *at, seen, excused);
                }
                Entry::Partial(partial) => {
                    let state = rooms.entry(partial.room).or_insert_with(|| new(self, partial.room));
                    state.fold_partial(partial);
                    if !self.is_undone_at(*at, state.forgotten) {
                        self.observe_partial(name, *at, partial);
                    }
                }
            }
        }
        if receiver.ended || receiver.logged_out.is_some() {
            return;
        }
        if rooms.is_empty() {
            self.violated("I7", format!("{name} never joined a room"));
        }
        for (room, state) in rooms {
            let head = self.records.history.get(&room).map_or(0, |history| history.len() as u64);
            if !state.joined {
                self.violated("I7", format!("{name} did not return to room {room}"));
            } else if state.upto < head {
                self.verdict.counts.lost += (head - state.upto) as usize;
                self.violated(
                    "I4",
                    format!("{name} has room {room} up to {}, but history goes up to {head}", state.upto),
                );
            }
            if self.records.restored.is_none() || state.forgotten {
                self.held(name, room, &state.held);
            }
            if let Some(restored) = self.records.restored.filter(|_| !state.forgotten) {
                self.violated(
                    "I4",
                    format!("{name} was not notified that room {room} was restored at {:?}", restored.renewed),
                );
            }
        }
    }

    /// Whether an event at this time may belong to a log that no longer exists, whose numbers say nothing about rights.
    fn is_undone_at(&self, at: At, forgotten: bool) -> bool {
        !forgotten && self.records.restored.is_some_and(|restored| at >= restored.copied)
    }

    /// Returns when the last event may arrive after the end of a session. While no replica of auth answers, gateways
    /// cannot read that it has ended.
    fn end_of_session(&self, ended: At) -> At {
        let outage = |fault: &Fault| fault.terms.auth.map(|back| (fault.from, fault.healed + back));
        let mut outages = self.records.faults.iter().filter_map(outage).collect::<Vec<_>>();
        outages.sort_unstable();
        let mut known = ended;
        for (from, until) in outages {
            if from <= known + LOGGED_OUT && until > known {
                known = until;
            }
        }
        known + LOGGED_OUT
    }

    /// The messages in the answer to a join are exactly those between the receiver's last message and the head.
    fn joined(
        &mut self,
        name: &str,
        at: At,
        room: Uuid,
        (after, head): (Option<u64>, u64),
        messages: &[Seen],
        excused: bool,
    ) {
        messages.iter().for_each(|seen| self.holds(name, at, seen, excused));
        let Some(after) = after else { return };
        self.verdict.counts.resumed += 1;
        self.verdict.counts.repaired += messages.len();
        let numbers = messages.iter().map(|seen| seen.seq).collect::<Vec<_>>();
        let history = self.records.history.get(&room).map_or(&[][..], Vec::as_slice);
        let missed = (after + 1..=head).filter(|seq| {
            let stored = history.get(*seq as usize - 1);
            stored.is_none_or(|stored| stored.act.is_none())
        });
        if numbers.iter().copied().eq(missed)
            || excused && self.records.restored.is_some_and(|restored| at >= restored.copied)
        {
            return;
        }
        let counts = &mut self.verdict.counts;
        match numbers.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) if pair[0] == pair[1] => counts.repeated += 1,
            Some(_) => counts.reordered += 1,
            None if numbers.first().is_some_and(|first| *first <= after) => counts.repeated += 1,
            None => counts.lost += (head.saturating_sub(after) as usize).saturating_sub(numbers.len()),
        }
        let ends = (numbers.first(), numbers.last(), numbers.len());
        self.violated(
            "I4",
            format!("{name} had room {room} up to {after}, joined at {at:?} with head {head}, and received {ends:?} (first, last, count)"),
        );
    }

    /// A live event follows the previous one, belongs to a room that the socket is in, and is on time.
    fn live(&mut self, name: &str, at: At, seen: &Seen, state: &mut RoomState, back: At) {
        let Seen { room, seq, .. } = *seen;
        let before = state.upto;
        state.upto = before.max(seq);
        if !state.joined {
            self.violated("I4", format!("{name} received {seq} of room {room} at {at:?} without being in the room"));
        } else if seq <= before {
            if seq == before {
                self.verdict.counts.repeated += 1;
            } else {
                self.verdict.counts.reordered += 1;
            }
            self.violated("I3", format!("{name} received {seq} of room {room} at {at:?}, after {before}"));
        } else if seq > before + 1 {
            self.verdict.counts.lost += (seq - before - 1) as usize;
            self.violated("I4", format!("{name} received {seq} of room {room} at {at:?} immediately after {before}"));
        }
        let Some(acked) = self.acked.get(&(room, seq)).copied() else { return };
        if acked >= back {
            self.lags.push((at, at.saturating_sub(acked)));
        }
        let due = self.late_until(acked, at).unwrap_or_default().max(acked).max(back) + DELIVERY_LIMIT;
        if at > due {
            self.violated("I4", format!("{name} received {seq} of room {room} at {at:?}, acknowledged at {acked:?}"));
        }
    }

    /// The changed messages in the answer to a join are those that the receiver may have and that were changed since.
    fn caught_up(
        &mut self,
        name: &str,
        at: At,
        room: Uuid,
        (from, after, head): (u64, Option<u64>, u64),
        changed: &[Seen],
        excused: bool,
    ) {
        changed.iter().for_each(|seen| self.stands(name, at, seen, excused));
        let Some(after) = after else { return };
        let mut missing = self.changed_between(room, (from.saturating_sub(1), after), (after, head));
        changed.iter().for_each(|seen| _ = missing.remove(&seen.seq));
        if !missing.is_empty() && !self.is_undone_at(at, !excused) {
            self.violated(
                "I4",
                format!("{name} joined room {room} at {at:?} after {after} without changes of {missing:?}"),
            );
        }
    }

    /// I5: every event that a client receives is in history, byte for byte except for what changes give new values.
    fn holds(&mut self, name: &str, at: At, seen: &Seen, excused: bool) {
        self.verdict.counts.delivered += 1;
        self.stands(name, at, seen, excused);
    }

    fn stands(&mut self, name: &str, at: At, seen: &Seen, excused: bool) {
        let stored =
            self.records.history.get(&seen.room).and_then(|history| history.get((seen.seq as usize).checked_sub(1)?));
        let undone = self.is_undone_at(at, !excused);
        if stored.is_some_and(|stored| stored.seen.is_same_event(seen)) {
            if !undone {
                self.observe(name, at, seen);
            }
        } else if !undone {
            let stored = stored.map(|stored| stored.seen);
            self.verdict.counts.invented += 1;
            self.violated("I5", format!("{name} received {seen:?} at {at:?}, but history has {stored:?}"));
        }
    }
}

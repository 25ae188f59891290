//! What each receiver holds is history from its first join on: once, in order, and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use super::super::history::{At, Entry, Receiver, Seen};
use super::Judge;

/// Within this the last event of a quiet room is there even if its hint was lost (I4).
const LATEST: Duration = Duration::from_secs(3);
/// After this nothing comes to who has logged out (I6).
const LOGGED_OUT: Duration = Duration::from_secs(5);

/// A room as one receiver has it.
#[derive(Default)]
struct Held {
    /// The highest number it holds; from the first join on without a hole.
    upto: u64,
    /// Whether the socket is in the room.
    joined: bool,
    /// It was told to forget what it had, because the database was put back. What came before that is of a log that is no more.
    forgotten: bool,
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
        let mut rooms = HashMap::<Uuid, Held>::new();
        // What is older than the last join or recovery may come after it.
        let mut back = At::ZERO;
        for (at, entry) in &receiver.entries {
            let heard = matches!(entry, Entry::Live(_) | Entry::Joined { .. });
            if heard && receiver.logged_out.is_some_and(|logged_out| *at > logged_out + LOGGED_OUT) {
                self.violated("I6", format!("{name} heard {entry:?} at {at:?}, logged out at {:?}", receiver.logged_out));
            }
            match entry {
                Entry::Opened | Entry::Closed => rooms.values_mut().for_each(|held| held.joined = false),
                Entry::Recovered => {
                    self.verdict.counts.recovered += 1;
                    rooms.values_mut().for_each(|held| held.joined = true);
                    back = *at;
                }
                Entry::Joined { room, after, last_seq, reset, messages } => {
                    let held = rooms.entry(*room).or_default();
                    held.joined = true;
                    held.upto = *last_seq;
                    let restored = self.records.restored.is_some_and(|restored| restored.copied < *at);
                    if *reset && !restored {
                        self.violated("I4", format!("{name} was told at {at:?} to forget room {room}, whose log was never restored"));
                    }
                    held.forgotten |= *reset;
                    let first = after.filter(|_| !*reset);
                    let excused = !held.forgotten;
                    self.joined(name, *at, *room, (first, *last_seq), messages, excused);
                    back = *at;
                }
                Entry::Live(seen) => {
                    let held = rooms.entry(seen.room).or_default();
                    let excused = !held.forgotten;
                    self.live(name, *at, seen, held, back);
                    self.holds(name, *at, seen, excused);
                }
            }
        }
        if receiver.ended || receiver.logged_out.is_some() {
            return;
        }
        if rooms.is_empty() {
            self.violated("I7", format!("{name} never joined a room"));
        }
        for (room, held) in rooms {
            let head = self.records.history.get(&room).map_or(0, |history| history.len() as u64);
            if !held.joined {
                self.violated("I7", format!("{name} did not come back to room {room}"));
            } else if held.upto < head {
                self.verdict.counts.lost += (head - held.upto) as usize;
                self.violated("I4", format!("{name} has room {room} up to {}, and history goes to {head}", held.upto));
            }
            if let Some(restored) = self.records.restored.filter(|_| !held.forgotten) {
                self.violated("I4", format!("{name} was not told that room {room} was restored at {:?}", restored.renewed));
            }
        }
    }

    /// What came with a join is exactly what follows what the receiver had, up to the head.
    fn joined(&mut self, name: &str, at: At, room: Uuid, (after, head): (Option<u64>, u64), messages: &[Seen], excused: bool) {
        messages.iter().for_each(|seen| self.holds(name, at, seen, excused));
        let Some(after) = after else { return };
        self.verdict.counts.resumed += 1;
        self.verdict.counts.repaired += messages.len();
        let numbers = messages.iter().map(|seen| seen.seq).collect::<Vec<_>>();
        if numbers.iter().copied().eq(after + 1..=head) || excused && self.records.restored.is_some_and(|restored| at >= restored.copied) {
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
            format!("{name} had room {room} up to {after}, joined at {at:?} with head {head}, and was given {ends:?} (first, last, count)"),
        );
    }

    /// A live event is the one after those before, of a room that the socket is in, and in time.
    fn live(&mut self, name: &str, at: At, seen: &Seen, held: &mut Held, back: At) {
        let Seen { room, seq, .. } = *seen;
        let before = held.upto;
        held.upto = before.max(seq);
        if !held.joined {
            self.violated("I4", format!("{name} heard {seq} of room {room} at {at:?} without being in it"));
        } else if seq <= before {
            match seq == before {
                true => self.verdict.counts.repeated += 1,
                false => self.verdict.counts.reordered += 1,
            }
            self.violated("I3", format!("{name} heard {seq} of room {room} at {at:?}, after {before}"));
        } else if seq > before + 1 {
            self.verdict.counts.lost += (seq - before - 1) as usize;
            self.violated("I4", format!("{name} heard {seq} of room {room} at {at:?} right after {before}"));
        }
        let Some(acked) = self.acked.get(&(room, seq)).copied() else { return };
        if acked >= back {
            self.lags.push((at, at.saturating_sub(acked)));
        }
        let due = self.late_until(acked, at).unwrap_or_default().max(acked).max(back) + LATEST;
        if at > due {
            self.violated("I4", format!("{name} heard {seq} of room {room} at {at:?}, acknowledged at {acked:?}"));
        }
    }

    /// I5: what is shown stands in history, byte for byte.
    fn holds(&mut self, name: &str, at: At, seen: &Seen, excused: bool) {
        self.verdict.counts.delivered += 1;
        let stored = self.records.history.get(&seen.room).and_then(|history| history.get((seen.seq as usize).checked_sub(1)?));
        let stands = stored.is_some_and(|stored| stored.seen == *seen);
        let undone = excused && self.records.restored.is_some_and(|restored| at >= restored.copied);
        if !stands && !undone {
            let stored = stored.map(|stored| stored.seen);
            self.verdict.counts.invented += 1;
            self.violated("I5", format!("{name} was shown {seen:?} at {at:?}, and history has {stored:?}"));
        }
    }
}

//! The checker: a pure function from the records of a run to the violations of the promises of delivery (I1 to I9).

mod changes;
mod fences;
mod markers;
mod meanwhile;
mod reactions;
mod receivers;
mod recovery;
mod requests;
mod states;
mod tallies;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use self::states::States;
use super::access::{Ledger, Rights};
use super::history::{At, Attempt, Entry, Fault, Outcome, Receiver, Records, Restored, Sent, Uses};
use super::message::Stored;

/// Maximum memory of one process at any time (1 GiB), and its maximum growth from start to end.
const MOST_MEMORY: u64 = 1 << 30;
const MORE_MEMORY: u64 = 128 << 20;
/// Allowed growth of descriptors and tasks beyond twice the number at the start.
const MORE_DESCRIPTORS: u64 = 200;
const MORE_TASKS: u64 = 500;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant: `I1` to `I9`; `case` for a bound of one case, `proof` when the run itself proves nothing.
    pub promise: &'static str,
    /// The observation.
    pub evidence: String,
}

/// Totals of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: usize,
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Attempts that failed and were repeated.
    pub retried: usize,
    /// Messages that receivers have.
    pub delivered: usize,
    /// Messages that receivers got with `joinRoom {after}` instead of live.
    pub repaired: usize,
    /// How often a receiver resumed with `after`.
    pub resumed: usize,
    /// How often Socket.IO's own recovery resumed a stock client.
    pub recovered: usize,
    /// Acknowledged but not in history, or in history but skipped at a receiver.
    pub lost: usize,
    /// In history or at a receiver more than once.
    pub repeated: usize,
    /// In another order than in history.
    pub reordered: usize,
    /// Shown to a client, but different or absent in history.
    pub invented: usize,
    /// Members who were removed, roles and visibilities that were changed.
    pub removals: usize,
    pub role_changes: usize,
    pub visibility_changes: usize,
    /// Edits, deletions, pins and ends of pins.
    pub changes: usize,
    /// Messages in a state that their changes do not give them, in history or at a receiver.
    pub misfolded: usize,
    /// Marks of read messages that were answered.
    pub marks: usize,
    /// Read markers that moved backwards without a mark as unread.
    pub receded: usize,
    /// Numbers of unread messages that history contradicts.
    pub miscounted: usize,
    /// Reactions that users gave or took back, and the answers confirmed.
    pub reactions: usize,
    /// Reactions that are lost, doubled or counted wrong.
    pub misreacted: usize,
    /// Replies in threads.
    pub replies: usize,
    /// Counts of replies that differ from the replies in the log.
    pub misreplied: usize,
    /// Posts and reads that were rejected because the user was not a member.
    pub rejected: usize,
    /// Sessions that ended by logout, alone or all together, and passwords that were changed.
    pub logouts: usize,
    pub password_changes: usize,
    /// Users who were suspended.
    pub suspensions: usize,
    /// Delivered to a user without the right to read.
    pub leaked: usize,
    /// Posted or read over REST by a user without the right.
    pub trespassed: usize,
    /// Delivered to a session that had ended.
    pub outlived: usize,
}

/// The result of the checker.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Empty if all promises were kept.
    pub violations: Vec<Violation>,
    pub counts: Counts,
    /// For each fault, in order: the time from its end until the system was healthy.
    pub recoveries: Vec<(&'static str, Duration)>,
    /// Time from acknowledgement to live delivery: the median and the 99th percentile.
    pub lag: (Duration, Duration),
}

/// Checks the records of a run.
pub fn check(records: &Records) -> Verdict {
    let mut judge = Judge {
        records,
        verdict: Verdict::default(),
        stored: HashMap::new(),
        acked: HashMap::new(),
        ledgers: HashMap::new(),
        changed: HashMap::new(),
        states: States::default(),
        lags: Vec::new(),
    };
    judge.history();
    judge.states();
    judge.reactions();
    judge.sends();
    judge.changes();
    judge.markers();
    judge.order_of_sends();
    judge.fences();
    judge.receivers();
    judge.recovery();
    judge.meanwhile();
    judge.requests();
    judge.bounds();
    judge.proof();
    judge.verdict
}

struct Judge<'a> {
    records: &'a Records,
    verdict: Verdict,
    /// The messages in history, by room, sender and `clientMessageId`.
    stored: HashMap<(Uuid, Uuid, &'a str), Vec<&'a Stored>>,
    /// When the event with this number in this room was acknowledged.
    acked: HashMap<(Uuid, u64), At>,
    /// The changes of each room whose members and visibility change.
    ledgers: HashMap<Uuid, Ledger>,
    /// When the change with this number in this room began, and when it was known to stand; `At::MAX`: never.
    changed: HashMap<(Uuid, u64), (At, At)>,
    states: States,
    /// When a message was delivered live, and how long after its acknowledgement.
    lags: Vec<(At, At)>,
}

impl<'a> Judge<'a> {
    fn violated(&mut self, promise: &'static str, evidence: impl Into<String>) {
        self.verdict.violations.push(Violation { promise, evidence: evidence.into() });
    }

    /// I3: numbers are dense. I1: no message is repeated.
    fn history(&mut self) {
        for (room, history) in &self.records.history {
            for (index, stored) in history.iter().enumerate() {
                if stored.seen.seq != index as u64 + 1 {
                    self.violated(
                        "I3",
                        format!("room {room}: number {} is at position {}", stored.seen.seq, index + 1),
                    );
                    break;
                }
            }
            for stored in history.iter().filter(|stored| !stored.key.is_empty()) {
                self.stored.entry((*room, stored.sender, &stored.key)).or_default().push(stored);
            }
        }
    }

    /// I1 and I2: an acknowledged message is in history once, equal to every answer; a message without acknowledgement
    /// at most once.
    fn sends(&mut self) {
        self.verdict.counts.sent = self.records.sends.len();
        for send in &self.records.sends {
            let stored = self.stored_of(send);
            let acks = send.acks().collect::<Vec<_>>();
            self.verdict.counts.retried += send.attempts.len().saturating_sub(1);
            if stored.len() > 1 {
                self.verdict.counts.repeated += stored.len() - 1;
                let numbers = stored.iter().map(|stored| stored.seen.seq).collect::<Vec<_>>();
                self.violated(
                    "I2",
                    format!("{} is in history {} times: {numbers:?} of room {}", send.key, numbers.len(), send.room),
                );
            }
            let Some((first, _)) = acks.first() else {
                if send.guest {
                    continue;
                }
                self.violated(
                    "I7",
                    format!("{} was never acknowledged; its last attempts: {}", send.key, last_tries(send)),
                );
                continue;
            };
            self.verdict.counts.acknowledged += 1;
            let Some(stored) = stored.first() else {
                if !self.is_undone(send) {
                    self.verdict.counts.lost += 1;
                    let evidence = format!(
                        "{} was acknowledged at {first:?} and is not in history: {}",
                        send.key,
                        last_tries(send)
                    );
                    self.violated("I1", evidence);
                }
                continue;
            };
            self.acked.insert((send.room, stored.seen.seq), *first);
            for (at, ack) in acks {
                self.observe(&send.key, at, &ack);
                if !ack.is_same_event(&stored.seen) {
                    self.violated(
                        "I2",
                        format!(
                            "{} was answered at {at:?} with {ack:?}, and {:?} is in history",
                            send.key, stored.seen
                        ),
                    );
                }
            }
        }
    }

    /// I3: numbers have the order of commits, so a send that began after an acknowledgement has a higher number.
    /// Messages that one socket sent to a room one after another keep their order.
    fn order_of_sends(&mut self) {
        let mut rooms = BTreeMap::<Uuid, Vec<(u64, At, At, &str)>>::new();
        let mut sockets = BTreeMap::<(u64, Uuid), Vec<(u64, u64)>>::new();
        for send in &self.records.sends {
            let (Some(stored), Some((acked, _))) = (self.stored_of(send).first().copied(), send.acks().next()) else {
                continue;
            };
            rooms.entry(send.room).or_default().push((stored.seen.seq, send.begun(), acked, &send.key));
            // A repeated send may have overtaken others, or been overtaken.
            if let [attempt] = &send.attempts[..]
                && let Some((socket, number)) = attempt.socket
            {
                sockets.entry((socket, send.room)).or_default().push((number, stored.seen.seq));
            }
        }
        for ((room, seq), (begun, known)) in &self.changed {
            rooms.entry(*room).or_default().push((*seq, *begun, *known, "a change"));
        }
        for (room, mut sends) in rooms {
            sends.sort_unstable();
            let mut latest = (At::ZERO, "");
            for (seq, begun, acked, key) in sends {
                if latest.0 > acked {
                    self.verdict.counts.reordered += 1;
                    let (at, before) = latest;
                    self.violated(
                        "I3",
                        format!("room {room}: {before}, begun at {at:?}, has a lower number than {key} ({seq}), acknowledged at {acked:?}"),
                    );
                }
                latest = latest.max((begun, key));
            }
        }
        for ((socket, room), mut sends) in sockets {
            sends.sort_unstable();
            for pair in sends.windows(2).filter(|pair| pair[0].1 > pair[1].1) {
                self.verdict.counts.reordered += 1;
                self.violated(
                    "I3",
                    format!(
                        "socket {socket} sent {pair:?} (emit, number) to room {room}, and history has another order"
                    ),
                );
            }
        }
    }

    /// I8: memory and descriptors are bounded and return to their initial values.
    fn bounds(&mut self) {
        for (name, Uses { first, most, last }) in self.records.uses() {
            if most.rss > MOST_MEMORY {
                self.violated("I8", format!("{name} used {} MiB", most.rss >> 20));
            }
            if last.rss > 2 * first.rss + MORE_MEMORY {
                self.violated(
                    "I8",
                    format!(
                        "{name} uses {} MiB at the end, and used {} MiB at the start",
                        last.rss >> 20,
                        first.rss >> 20
                    ),
                );
            }
            if last.descriptors > 2 * first.descriptors + MORE_DESCRIPTORS {
                let (first, last) = (first.descriptors, last.descriptors);
                self.violated("I8", format!("{name} has {last} descriptors at the end, and had {first} at the start"));
            }
            if let (Some(first), Some(last)) = (first.tasks, last.tasks)
                && last > 2 * first + MORE_TASKS
            {
                self.violated("I8", format!("{name} has {last} tasks at the end, and had {first} at the start"));
            }
        }
    }

    /// A run without messages, deliveries or faults proves nothing.
    fn proof(&mut self) {
        for broken in &self.records.broken {
            self.violated("case", broken);
        }
        if self.verdict.counts.acknowledged == 0 || self.verdict.counts.delivered == 0 {
            self.violated("proof", "no message was sent, or no message was received");
        }
        if !self.records.openings.is_empty() && self.verdict.counts.removals == 0 {
            self.violated("proof", "no member was removed");
        }
        let is_change = |entry: &(At, Entry)| matches!(entry, (_, Entry::Changed(_)));
        if self.verdict.counts.changes > 0
            && !self.records.receivers.iter().any(|one| one.entries.iter().any(is_change))
        {
            self.violated("proof", "messages were changed, and no change was received");
        }
        let is_partial = |entry: &(At, Entry)| matches!(entry, (_, Entry::Partial(_)));
        if self.verdict.counts.reactions + self.verdict.counts.replies > 0
            && !self.records.receivers.iter().any(|one| one.entries.iter().any(is_partial))
        {
            self.violated("proof", "users reacted or replied, and no new count was received");
        }
        // Recovery may fail now and then, but not every time.
        let opened =
            |receiver: &Receiver| receiver.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Opened)).count();
        if self.verdict.counts.recovered == 0
            && self.records.receivers.iter().any(|receiver| receiver.recovers && opened(receiver) > 3)
        {
            self.violated("proof", "Socket.IO's recovery never resumed a client that requested it");
        }
    }

    /// Returns the rights of a user in a room whose changes are known; in all other rooms every user may read and post.
    fn rights(&self, room: Uuid, user: Uuid) -> Rights {
        self.ledgers.get(&room).map(|ledger| ledger.of(user)).unwrap_or_default()
    }

    fn stored_of(&self, send: &'a Sent) -> Vec<&'a Stored> {
        self.stored.get(&(send.room, send.sender, send.key.as_str())).cloned().unwrap_or_default()
    }

    /// Returns whether an acknowledged message may have been lost when the database was restored to an older state: it
    /// was sent before the old database ended, whenever its acknowledgement arrived.
    fn is_undone(&self, send: &Sent) -> bool {
        let of =
            |attempt: &Attempt, restored: Restored| attempt.begun <= restored.ended && attempt.ended >= restored.copied;
        let mut acked = send.attempts.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Acked(_)));
        self.records.restored.is_some_and(|restored| acked.all(|attempt| of(attempt, restored)))
    }

    /// Returns whether a fault between two times may keep clients from receiving.
    fn is_mute(&self, from: At, to: At) -> bool {
        self.records.faults.iter().any(|fault| fault.terms.mute && fault.from <= to && fault.healed >= from)
    }

    /// Returns until when the faults between two times may delay events.
    fn late_until(&self, from: At, to: At) -> Option<At> {
        let until = |fault: &Fault| fault.healed + fault.terms.recovers;
        let faults =
            self.records.faults.iter().filter(|fault| fault.terms.late && fault.from <= to && until(fault) >= from);
        faults.map(until).max()
    }
}

fn last_tries(send: &Sent) -> String {
    let last = &send.attempts[send.attempts.len().saturating_sub(3)..];
    format!("{:?}", last.iter().map(|attempt| (attempt.ended, &attempt.outcome)).collect::<Vec<_>>())
}

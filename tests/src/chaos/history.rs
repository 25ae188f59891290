//! What was sent, answered and heard, with times: the evidence that the checker judges.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use uuid::Uuid;

use super::terms::Terms;

/// When something happened, from the beginning of the run.
pub type At = Duration;

/// A Message as somebody was shown it: which, and a digest of every byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its room.
    pub room: Uuid,
    /// Its number there.
    pub seq: u64,
    /// Its id.
    pub id: Uuid,
    /// Of the whole Message.
    pub digest: u64,
}

impl Seen {
    /// Reads a Message; `None` when it is none.
    pub fn of(message: &Value) -> Option<Self> {
        let id = |name: &str| Uuid::try_parse(message[name].as_str()?).ok();
        let mut hasher = DefaultHasher::new();
        message.to_string().hash(&mut hasher);
        Some(Self { room: id("roomId")?, seq: message["seq"].as_u64()?, id: id("id")?, digest: hasher.finish() })
    }
}

/// A Message in the final history.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As it is shown.
    pub seen: Seen,
    /// Who sent it.
    pub sender: Uuid,
    /// Its `clientMessageId`.
    pub key: String,
}

/// One message that somebody wants in a room, however often it takes.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Who.
    pub sender: Uuid,
    /// Where.
    pub room: Uuid,
    /// The `clientMessageId`.
    pub key: String,
    /// In order of their ends.
    pub attempts: Vec<Attempt>,
}

impl Sent {
    /// Every acknowledgement, with its time.
    pub fn acks(&self) -> impl Iterator<Item = (At, Seen)> {
        self.attempts.iter().filter_map(|attempt| match attempt.outcome {
            Outcome::Acked(seen) => Some((attempt.ended, seen)),
            _ => None,
        })
    }

    /// When it was first tried.
    pub fn begun(&self) -> At {
        self.attempts.iter().map(|attempt| attempt.begun).min().unwrap_or(At::MAX)
    }
}

/// One try.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When.
    pub begun: At,
    /// When its outcome was known, or it was given up.
    pub ended: At,
    /// By which socket, and as which of its emits; REST has none.
    pub socket: Option<(u64, u64)>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged with this Message.
    Acked(Seen),
    /// Done; there is no Message in the answer.
    Done,
    /// Refused with a status and a code.
    Refused(u64, String),
    /// The connection ended first.
    Broken,
    /// Nothing came for as long as a client waits.
    Silent,
}

/// One client that listens: everything that happened to it.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// What it is, for the evidence.
    pub name: String,
    /// Set when its user logged out: when that was acknowledged.
    pub logged_out: Option<At>,
    /// Whether it is to hold everything at the end; one that ended on purpose is not.
    pub ended: bool,
    /// Whether it asks for Socket.IO's own recovery.
    pub recovers: bool,
    /// What happened, in order.
    pub entries: Vec<(At, Entry)>,
}

/// Something that happened to a receiver.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Its connection was there.
    Opened,
    /// Its connection was gone.
    Closed,
    /// Its connection was there, and the client was told that it is in all its rooms as before.
    Recovered,
    /// `joinRoom` was acknowledged.
    Joined {
        /// Which room.
        room: Uuid,
        /// What it said it had.
        after: Option<u64>,
        /// The head of the room.
        last_seq: u64,
        /// Whether it was told to forget what it had.
        reset: bool,
        /// What came with the acknowledgement, and what was paged by REST up to the head.
        messages: Vec<Seen>,
    },
    /// An event.
    Live(Seen),
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The case.
    pub name: &'static str,
    /// When it began.
    pub from: At,
    /// When it was healed.
    pub healed: At,
    /// What it may do.
    pub terms: Terms,
    /// How it is known that it bit.
    pub bit: String,
}

/// The database was put back to an older copy: what was committed between copy and end is gone.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// When it was copied.
    pub copied: At,
    /// From when on it certainly did not run any more, until the copy did.
    pub ended: At,
    /// When the operator had said so.
    pub renewed: At,
}

/// What one process used at some moment.
#[derive(Debug, Clone)]
pub struct Use {
    /// Which process.
    pub name: String,
    /// When.
    pub at: At,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Tasks of its runtime; `None` when it did not say.
    pub tasks: Option<u64>,
}

/// How often attackers did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attacks {
    /// How often they did.
    pub made: u64,
    /// How often they were refused, or cut off.
    pub refused: u64,
}

/// Everything of one run.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Every message that was sent.
    pub sends: Vec<Sent>,
    /// Everybody who listened.
    pub receivers: Vec<Receiver>,
    /// Other requests: what they were, begin, end, outcome.
    pub calls: Vec<(String, Attempt)>,
    /// What was broken.
    pub faults: Vec<Fault>,
    /// When the database was put back to an older copy.
    pub restored: Option<Restored>,
    /// What the processes used.
    pub uses: Vec<Use>,
    /// What attackers did.
    pub attacks: BTreeMap<&'static str, Attacks>,
    /// Promises of single cases that were not kept.
    pub broken: Vec<String>,
    /// The final history of every room, in rising `seq`.
    pub history: HashMap<Uuid, Vec<Stored>>,
    /// When the run ended.
    pub ended: At,
}

/// What one process used in the course of a run.
#[derive(Debug, Clone)]
pub struct Uses {
    /// At first.
    pub first: Use,
    /// The most of each at any time.
    pub most: Use,
    /// At the end.
    pub last: Use,
}

impl Records {
    /// What each process used, by its name.
    pub fn uses(&self) -> BTreeMap<&str, Uses> {
        let mut processes = BTreeMap::<&str, Uses>::new();
        for used in &self.uses {
            let new = || Uses { first: used.clone(), most: used.clone(), last: used.clone() };
            let uses = processes.entry(&used.name).or_insert_with(new);
            uses.most.rss = uses.most.rss.max(used.rss);
            uses.most.descriptors = uses.most.descriptors.max(used.descriptors);
            uses.most.tasks = uses.most.tasks.max(used.tasks);
            uses.last = used.clone();
        }
        processes
    }

    /// Whether everybody who is to hold everything has come to the heads of all rooms.
    pub fn all_hold(&self, heads: &HashMap<Uuid, u64>) -> bool {
        let mut holders = self.receivers.iter().filter(|receiver| !receiver.ended && receiver.logged_out.is_none());
        holders.all(|receiver| {
            let mut upto = HashMap::new();
            for (_, entry) in &receiver.entries {
                match entry {
                    Entry::Joined { room, last_seq, .. } => _ = upto.insert(*room, *last_seq),
                    Entry::Live(seen) => _ = upto.insert(seen.room, seen.seq),
                    Entry::Opened | Entry::Closed | Entry::Recovered => {}
                }
            }
            heads.iter().all(|(room, head)| upto.get(room).is_some_and(|upto| upto >= head))
        })
    }
}

/// Where clients write down what happens; clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    start: Instant,
    // Held for a push, never across an await.
    records: Mutex<(Records, Pulse)>,
}

/// How things are just now, for whoever waits until they are well.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// When a request last failed or was slow, or an event came late.
    pub troubled: At,
    /// How many receivers should be listening.
    pub listeners: usize,
    /// How many are.
    pub listening: usize,
    /// Messages that wait for their acknowledgement.
    pub pending: usize,
    /// Messages that have it.
    pub acknowledged: usize,
}

/// A request that takes longer is not normal.
pub const SLOW: Duration = Duration::from_secs(1);

impl Recorder {
    /// Nothing yet; the run begins.
    pub fn new() -> Self {
        Self(Arc::new(Inner { start: Instant::now(), records: Mutex::default() }))
    }

    /// Now.
    pub fn now(&self) -> At {
        self.0.start.elapsed()
    }

    /// How things are.
    pub fn pulse(&self) -> Pulse {
        self.lock().1.clone()
    }

    /// How many messages have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.lock().1.acknowledged
    }

    /// Whether a receiver is in a room.
    pub fn has_joined(&self, receiver: usize) -> bool {
        self.lock().0.receivers[receiver].entries.iter().any(|(_, entry)| matches!(entry, Entry::Joined { .. }))
    }

    /// Looks at everything so far.
    pub fn with<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.lock().0)
    }

    /// Changes the pulse.
    pub fn beat(&self, change: impl FnOnce(&mut Pulse)) {
        change(&mut self.lock().1);
    }

    /// Notes a new message; its number.
    pub fn sending(&self, sender: Uuid, room: Uuid, key: String) -> usize {
        let mut inner = self.lock();
        inner.1.pending += 1;
        inner.0.sends.push(Sent { sender, room, key, attempts: Vec::new() });
        inner.0.sends.len() - 1
    }

    /// Notes what came of a try to send it.
    pub fn tried(&self, send: usize, begun: At, socket: Option<(u64, u64)>, outcome: Outcome) {
        let ended = self.now();
        let mut inner = self.lock();
        let first_ack = matches!(outcome, Outcome::Acked(_)) && inner.0.sends[send].acks().next().is_none();
        inner.1.pending -= usize::from(first_ack);
        inner.1.acknowledged += usize::from(first_ack);
        inner.1.note(begun, ended, &outcome);
        inner.0.sends[send].attempts.push(Attempt { begun, ended, socket, outcome });
    }

    /// Notes another request.
    pub fn called(&self, what: impl Into<String>, begun: At, outcome: Outcome) {
        let ended = self.now();
        self.lock().0.calls.push((what.into(), Attempt { begun, ended, socket: None, outcome }));
    }

    /// A new receiver; its number.
    pub fn receiver(&self, name: impl Into<String>) -> usize {
        let mut inner = self.lock();
        inner.0.receivers.push(Receiver { name: name.into(), ..Receiver::default() });
        inner.0.receivers.len() - 1
    }

    /// Notes what happened to a receiver.
    pub fn happened(&self, receiver: usize, entry: Entry) {
        let now = self.now();
        let mut inner = self.lock();
        if !matches!(entry, Entry::Live(_)) {
            inner.1.troubled = now;
        }
        inner.0.receivers[receiver].entries.push((now, entry));
    }

    /// Changes the records otherwise.
    pub fn note(&self, change: impl FnOnce(&mut Records)) {
        change(&mut self.lock().0);
    }

    /// Everything so far.
    pub fn records(&self) -> Records {
        let ended = self.now();
        Records { ended, ..self.lock().0.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, (Records, Pulse)> {
        self.0.records.lock()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    fn note(&mut self, begun: At, ended: At, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Acked(_)) || ended - begun > SLOW {
            self.troubled = ended;
        }
    }
}

//! The records of a run: all sends, answers and deliveries, with times. The checker judges them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use uuid::Uuid;

use super::terms::Terms;

/// A time, measured from the beginning of the run.
pub type At = Duration;

/// A message as a client received it: its identity, and a digest of all its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub room: Uuid,
    pub seq: u64,
    pub id: Uuid,
    /// The digest of the whole message.
    pub digest: u64,
}

impl Seen {
    /// Parses a message; `None` when it is not a message.
    pub fn of(message: &Value) -> Option<Self> {
        let id = |name: &str| Uuid::try_parse(message[name].as_str()?).ok();
        let mut hasher = DefaultHasher::new();
        message.to_string().hash(&mut hasher);
        Some(Self { room: id("roomId")?, seq: message["seq"].as_u64()?, id: id("id")?, digest: hasher.finish() })
    }
}

/// A message in the final history.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The message as clients receive it.
    pub seen: Seen,
    pub sender: Uuid,
    /// Its `clientMessageId`.
    pub key: String,
}

/// One message that a client wants to send, with all its attempts.
#[derive(Debug, Clone)]
pub struct Sent {
    pub sender: Uuid,
    pub room: Uuid,
    /// The `clientMessageId`.
    pub key: String,
    /// In the order of their ends.
    pub attempts: Vec<Attempt>,
}

impl Sent {
    /// Yields every acknowledgement, with its time.
    pub fn acks(&self) -> impl Iterator<Item = (At, Seen)> {
        self.attempts.iter().filter_map(|attempt| match attempt.outcome {
            Outcome::Acked(seen) => Some((attempt.ended, seen)),
            _ => None,
        })
    }

    /// When the first attempt began.
    pub fn begun(&self) -> At {
        self.attempts.iter().map(|attempt| attempt.begun).min().unwrap_or(At::MAX)
    }
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub begun: At,
    /// When its outcome was known, or the client stopped waiting.
    pub ended: At,
    /// The socket, and the number of the emit on it; `None` for REST.
    pub socket: Option<(u64, u64)>,
    pub outcome: Outcome,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged with this message.
    Acked(Seen),
    /// Succeeded; the answer contains no message.
    Done,
    /// Rejected with a status and a code.
    Refused(u64, String),
    /// The connection ended first.
    Broken,
    /// No answer within the client's time limit.
    Silent,
}

/// One listening client, with everything that happened to it.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// A description, for the evidence.
    pub name: String,
    /// When the logout of its user was acknowledged.
    pub logged_out: Option<At>,
    /// Whether the client was stopped on purpose, so that it need not be complete at the end.
    pub ended: bool,
    /// Whether it uses Socket.IO's own recovery.
    pub recovers: bool,
    /// What happened, in order.
    pub entries: Vec<(At, Entry)>,
}

/// An event at a receiver.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The connection was established.
    Opened,
    /// The connection was lost.
    Closed,
    /// The connection was established, and Socket.IO's recovery restored all its rooms.
    Recovered,
    /// `joinRoom` was acknowledged.
    Joined {
        room: Uuid,
        /// The `after` of the request.
        after: Option<u64>,
        /// The head of the room.
        last_seq: u64,
        /// Whether the answer requires the client to discard its messages.
        reset: bool,
        /// The messages in the acknowledgement, and the messages read by REST up to the head.
        messages: Vec<Seen>,
    },
    /// A live event.
    Live(Seen),
}

/// An injected fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The name of the case.
    pub name: &'static str,
    pub from: At,
    pub healed: At,
    /// What the fault may cause.
    pub terms: Terms,
    /// Evidence that the fault had an effect.
    pub bit: String,
}

/// The database was restored to an older copy: commits between `copied` and `ended` are lost.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// When the copy was made.
    pub copied: At,
    /// When the old database had certainly stopped.
    pub ended: At,
    /// When the operator had renewed the epoch.
    pub renewed: At,
}

/// The resource use of one process at one time.
#[derive(Debug, Clone)]
pub struct Use {
    pub name: String,
    pub at: At,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Tasks of its runtime; `None` when the process did not answer.
    pub tasks: Option<u64>,
}

/// Counts of attacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attacks {
    /// How often the attack was made.
    pub made: u64,
    /// How often it was rejected or cut off.
    pub refused: u64,
}

/// All records of one run.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Every message that was sent.
    pub sends: Vec<Sent>,
    /// Every listening client.
    pub receivers: Vec<Receiver>,
    /// Other requests with their description.
    pub calls: Vec<(String, Attempt)>,
    /// The injected faults.
    pub faults: Vec<Fault>,
    /// When the database was restored to an older copy.
    pub restored: Option<Restored>,
    /// The resource use of the processes.
    pub uses: Vec<Use>,
    /// The attacks, by name.
    pub attacks: BTreeMap<&'static str, Attacks>,
    /// Violations that single cases found.
    pub broken: Vec<String>,
    /// The final history of every room, in ascending `seq`.
    pub history: HashMap<Uuid, Vec<Stored>>,
    /// When the run ended.
    pub ended: At,
}

/// The resource use of one process over a run.
#[derive(Debug, Clone)]
pub struct Uses {
    /// At the start.
    pub first: Use,
    /// The maximum of each value.
    pub most: Use,
    /// At the end.
    pub last: Use,
}

impl Records {
    /// Returns the resource use of each process, by name.
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

    /// Returns whether every receiver that must be complete has reached the heads of all rooms.
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

/// Records what happens to clients; clones share the records.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    start: Instant,
    // Locked for a push, never across an await.
    records: Mutex<(Records, Health)>,
}

/// The current health of the run, for tasks that wait until it is healthy.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// When a request last failed or was slow, or an event was late.
    pub troubled: At,
    /// How many receivers should be connected.
    pub listeners: usize,
    /// How many receivers are connected.
    pub listening: usize,
    /// Messages without an acknowledgement.
    pub pending: usize,
    /// Messages with an acknowledgement.
    pub acknowledged: usize,
}

/// A request that takes longer counts as slow.
pub const SLOW: Duration = Duration::from_secs(1);

impl Recorder {
    pub fn new() -> Self {
        Self(Arc::new(Inner { start: Instant::now(), records: Mutex::default() }))
    }

    pub fn now(&self) -> At {
        self.0.start.elapsed()
    }

    pub fn health(&self) -> Health {
        self.lock().1.clone()
    }

    /// Returns how many messages have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.lock().1.acknowledged
    }

    /// Returns whether a receiver is in a room.
    pub fn has_joined(&self, receiver: usize) -> bool {
        self.lock().0.receivers[receiver].entries.iter().any(|(_, entry)| matches!(entry, Entry::Joined { .. }))
    }

    /// Reads the records so far.
    pub fn with<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.lock().0)
    }

    /// Changes the current health.
    pub fn update_health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.lock().1);
    }

    /// Records a new message; returns its number.
    pub fn sending(&self, sender: Uuid, room: Uuid, key: String) -> usize {
        let mut inner = self.lock();
        inner.1.pending += 1;
        inner.0.sends.push(Sent { sender, room, key, attempts: Vec::new() });
        inner.0.sends.len() - 1
    }

    /// Records the outcome of an attempt to send a message.
    pub fn tried(&self, send: usize, begun: At, socket: Option<(u64, u64)>, outcome: Outcome) {
        let ended = self.now();
        let mut inner = self.lock();
        let first_ack = matches!(outcome, Outcome::Acked(_)) && inner.0.sends[send].acks().next().is_none();
        inner.1.pending -= usize::from(first_ack);
        inner.1.acknowledged += usize::from(first_ack);
        inner.1.note(begun, ended, &outcome);
        inner.0.sends[send].attempts.push(Attempt { begun, ended, socket, outcome });
    }

    /// Records another request.
    pub fn called(&self, what: impl Into<String>, begun: At, outcome: Outcome) {
        let ended = self.now();
        self.lock().0.calls.push((what.into(), Attempt { begun, ended, socket: None, outcome }));
    }

    /// Adds a receiver; returns its number.
    pub fn receiver(&self, name: impl Into<String>) -> usize {
        let mut inner = self.lock();
        inner.0.receivers.push(Receiver { name: name.into(), ..Receiver::default() });
        inner.0.receivers.len() - 1
    }

    /// Records what happened to a receiver.
    pub fn happened(&self, receiver: usize, entry: Entry) {
        let now = self.now();
        let mut inner = self.lock();
        if !matches!(entry, Entry::Live(_)) {
            inner.1.troubled = now;
        }
        inner.0.receivers[receiver].entries.push((now, entry));
    }

    /// Changes the records.
    pub fn note(&self, change: impl FnOnce(&mut Records)) {
        change(&mut self.lock().0);
    }

    pub fn records(&self) -> Records {
        let ended = self.now();
        Records { ended, ..self.lock().0.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, (Records, Health)> {
        self.0.records.lock()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    fn note(&mut self, begun: At, ended: At, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Acked(_)) || ended - begun > SLOW {
            self.troubled = ended;
        }
    }
}

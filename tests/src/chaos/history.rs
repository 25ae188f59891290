//! The records of a run: all sends, answers and deliveries, with times. The checker judges them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::access::{Change, Opening, Role};
use super::message::{Op, Partial, Seen, Stored, Toggle};
use super::terms::Terms;

/// A time, measured from the beginning of the run.
pub type At = Duration;

/// One message that a client wants to send, with all its attempts.
#[derive(Debug, Clone)]
pub struct Sent {
    pub sender: Uuid,
    pub room: Uuid,
    /// The `clientMessageId`.
    pub key: String,
    /// Whether the sender may lose the right to post meanwhile, so that a rejection may be the outcome.
    pub guest: bool,
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

impl Outcome {
    /// Whether the answer is that of a room that does not exist or is hidden from the user.
    pub fn is_hidden(&self) -> bool {
        matches!(self, Self::Refused(404, code) if code == "not_found")
    }
}

/// A change of a room, of a message or of a user's sessions, which a client repeats until it knows the outcome.
#[derive(Debug, Clone)]
pub struct Act {
    pub what: What,
    /// In the order of their ends.
    pub attempts: Vec<Attempt>,
    /// When the client knew that the change stands.
    pub known: Option<At>,
}

/// What an act changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The members or the visibility of a room, by this event.
    Room {
        room: Uuid,
        change: Change,
    },
    /// A change of a message, by this user.
    Message {
        room: Uuid,
        target: u64,
        by: Uuid,
        op: Op,
        /// The new text of an edit.
        text: Option<String>,
    },
    /// A reaction to a message, given or taken back.
    Reaction {
        room: Uuid,
        target: u64,
        toggle: Toggle,
    },
    LogIn,
    LogOut,
    /// Ends all sessions of the user.
    LogOutEverywhere,
    /// Ends all other sessions of the user.
    ChangePassword,
    /// Ends all sessions of the user, who cannot log in until `Restore`.
    Suspend,
    /// A login that must be rejected.
    LogInSuspended,
    Restore,
}

impl What {
    /// Whether a password is checked, which takes longer than other acts.
    pub fn has_password(&self) -> bool {
        matches!(self, Self::LogIn | Self::LogInSuspended | Self::ChangePassword)
    }
}

impl Act {
    /// When the first attempt began.
    pub fn begun(&self) -> At {
        self.attempts.iter().map(|attempt| attempt.begun).min().unwrap_or(At::MAX)
    }

    /// Whether it changes sessions.
    pub fn is_of_sessions(&self) -> bool {
        !matches!(self.what, What::Room { .. } | What::Message { .. } | What::Reaction { .. })
    }
}

/// One request for the history of a room.
#[derive(Debug, Clone)]
pub struct Read {
    pub user: Uuid,
    pub room: Uuid,
    pub attempt: Attempt,
}

/// One listening client, with everything that happened to it.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// A description, for the evidence.
    pub name: String,
    pub user: Uuid,
    /// The rooms that it joins.
    pub rooms: Vec<Uuid>,
    /// Whether it returns to its rooms without a fault, too, so that a return is no sign of trouble.
    pub restless: bool,
    /// When the end of its session was acknowledged: a logout, or a new password.
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
        /// The `from` of the request: the lowest number that the client has.
        from: u64,
        /// The head of the room.
        last_seq: u64,
        /// Whether the answer requires the client to discard its messages.
        reset: bool,
        /// The messages in the acknowledgement, and the messages read by REST up to the head.
        messages: Vec<Seen>,
        /// The messages up to `after` that were changed since.
        changed: Vec<Seen>,
    },
    /// A live event.
    Live(Seen),
    /// The message in the live event of a change, which came before.
    Changed(Seen),
    /// The values in the live event of a change, which came before: of a message that the event does not show whole.
    Partial(Partial),
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
    /// Every room whose members and visibility change, as it was created.
    pub openings: BTreeMap<Uuid, Opening>,
    /// Every change of a room, of a message, and of a user's sessions.
    pub acts: Vec<Act>,
    /// Requests for history by users who may lose the right to read.
    pub reads: Vec<Read>,
    /// The injected faults.
    pub faults: Vec<Fault>,
    /// When the database was restored to an older copy.
    pub restored: Option<Restored>,
    /// The resource use of the processes.
    pub uses: Vec<Use>,
    /// The attacks, by name.
    pub attacks: BTreeMap<&'static str, Attacks>,
    /// The marks of read messages, in the order in which they began.
    pub marks: Vec<Mark>,
    /// The read markers at the end, as each gateway shows them.
    pub markers: Vec<Marker>,
    /// Violations that single cases found.
    pub broken: Vec<String>,
    /// The final raw log of every room, in ascending `seq`.
    pub history: HashMap<Uuid, Vec<Stored>>,
    /// The final history of every room as clients read it: messages in their present state and room events, in
    /// ascending `seq`.
    pub present: HashMap<Uuid, Vec<Seen>>,
    /// The members of rooms at the end, as the room service lists them.
    pub members: HashMap<Uuid, BTreeMap<Uuid, Role>>,
    /// When the run ended.
    pub ended: At,
}

/// A mark of read messages by the owner of the rooms. The marks of a room are made one after another.
#[derive(Debug, Clone)]
pub struct Mark {
    pub room: Uuid,
    pub seq: u64,
    /// Whether the marker also moves backwards.
    pub back: bool,
    pub begun: At,
    pub ended: At,
    /// The marker in the answer; `None` without one.
    pub stands_at: Option<u64>,
}

/// A read marker at the end.
#[derive(Debug, Clone)]
pub struct Marker {
    pub room: Uuid,
    pub seq: u64,
    pub unread: u64,
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

    /// Returns whether every receiver that must be complete has reached the heads of its rooms.
    pub fn all_hold(&self, heads: &HashMap<Uuid, u64>) -> bool {
        let mut holders = self.receivers.iter().filter(|receiver| !receiver.ended && receiver.logged_out.is_none());
        holders.all(|receiver| {
            let mut upto = HashMap::new();
            for (_, entry) in &receiver.entries {
                match entry {
                    Entry::Joined { room, last_seq, .. } => _ = upto.insert(*room, *last_seq),
                    Entry::Live(seen) => _ = upto.insert(seen.room, seen.seq),
                    Entry::Changed(_) | Entry::Partial(_) | Entry::Opened | Entry::Closed | Entry::Recovered => {}
                }
            }
            receiver.rooms.iter().all(|room| heads.get(room) <= upto.get(room))
        })
    }

    /// Returns the acts of which a client knows that they stand.
    pub fn known_acts(&self) -> impl Iterator<Item = &Act> {
        self.acts.iter().filter(|act| act.known.is_some())
    }
}

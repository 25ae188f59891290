//! Records what happens to clients during a run, and its current health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::history::{Act, At, Attempt, Entry, Outcome, Read, Receiver, Records, Sent, What};

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

    /// Changes the current health, unless the receiver is restless.
    pub fn update_health(&self, receiver: usize, change: impl FnOnce(&mut Health)) {
        let mut inner = self.lock();
        if !inner.0.receivers[receiver].restless {
            change(&mut inner.1);
        }
    }

    /// Records a new message; returns its number. `guest`: the sender may lose the right to post.
    pub fn sending(&self, sender: Uuid, room: Uuid, key: String, guest: bool) -> usize {
        let mut inner = self.lock();
        inner.1.pending += usize::from(!guest);
        inner.0.sends.push(Sent { sender, room, key, guest, attempts: Vec::new() });
        inner.0.sends.len() - 1
    }

    /// Records the outcome of an attempt to send a message.
    pub fn tried(&self, send: usize, begun: At, socket: Option<(u64, u64)>, outcome: Outcome) {
        let ended = self.now();
        let mut inner = self.lock();
        if !inner.0.sends[send].guest {
            let first_ack = matches!(outcome, Outcome::Acked(_)) && inner.0.sends[send].acks().next().is_none();
            inner.1.pending -= usize::from(first_ack);
            inner.1.acknowledged += usize::from(first_ack);
            inner.1.note(begun, ended, &outcome);
        }
        inner.0.sends[send].attempts.push(Attempt { begun, ended, socket, outcome });
    }

    /// Records another request.
    pub fn called(&self, what: impl Into<String>, begun: At, outcome: Outcome) {
        let ended = self.now();
        self.lock().0.calls.push((what.into(), Attempt { begun, ended, socket: None, outcome }));
    }

    /// Records a `joinRoom`. The socket of a restless client may end meanwhile.
    pub fn asked(&self, receiver: usize, begun: At, outcome: Outcome) {
        let ended = self.now();
        let mut inner = self.lock();
        let socket = inner.0.receivers[receiver].restless.then_some((receiver as u64, 0));
        inner.0.calls.push(("joinRoom".into(), Attempt { begun, ended, socket, outcome }));
    }

    /// Records a new act; returns its number.
    pub fn acting(&self, what: What) -> usize {
        let mut inner = self.lock();
        inner.0.acts.push(Act { what, attempts: Vec::new(), known: None });
        inner.0.acts.len() - 1
    }

    /// Records the outcome of an attempt of an act; `stands`: the client now knows that the change stands. Returns the
    /// time.
    pub fn acted(&self, act: usize, begun: At, socket: Option<(u64, u64)>, outcome: Outcome, stands: bool) -> At {
        let ended = self.now();
        let mut inner = self.lock();
        let act = &mut inner.0.acts[act];
        act.attempts.push(Attempt { begun, ended, socket, outcome });
        act.known = act.known.or(stands.then_some(ended));
        ended
    }

    /// Records a request for the history of a room.
    pub fn read(&self, user: Uuid, room: Uuid, begun: At, outcome: Outcome) {
        let attempt = Attempt { begun, ended: self.now(), socket: None, outcome };
        self.lock().0.reads.push(Read { user, room, attempt });
    }

    /// Adds a receiver; returns its number.
    pub fn receiver(&self, receiver: Receiver) -> usize {
        let mut inner = self.lock();
        inner.0.receivers.push(receiver);
        inner.0.receivers.len() - 1
    }

    /// Returns the user and the rooms of a receiver.
    pub fn place_of(&self, receiver: usize) -> (Uuid, Vec<Uuid>) {
        let inner = self.lock();
        let receiver = &inner.0.receivers[receiver];
        (receiver.user, receiver.rooms.clone())
    }

    /// Records what happened to a receiver.
    pub fn happened(&self, receiver: usize, entry: Entry) {
        self.happened_at(self.now(), receiver, entry);
    }

    /// As [`happened`](Self::happened), for an entry whose evidence was complete only later.
    pub fn happened_at(&self, at: At, receiver: usize, entry: Entry) {
        let now = self.now();
        let mut inner = self.lock();
        if !matches!(entry, Entry::Live(_) | Entry::Changed(_) | Entry::Partial(_))
            && !inner.0.receivers[receiver].restless
        {
            inner.1.troubled = now;
        }
        inner.0.receivers[receiver].entries.push((at, entry));
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

//! What the gateway keeps for each socket: its identity, its rooms, and its events that wait.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use confab_common::Error;
use confab_common::metrics::LIMITS;
use confab_socketio::outbox::{MAX_UNKNOWN, Outbox};
use confab_socketio::{Ending, Frame, Malformed, Session};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::sleep;
use uuid::Uuid;

use super::lanes::{Lanes, Pending};
use super::recovery::Recovery;
use crate::rooms::hub::{Arrival, Listener};
use crate::tokens::Identity;

/// Most bytes of events that may wait to be handled; beyond that nothing more is read from the client.
const MAX_QUEUED: usize = 1024 * 1024;
/// Most sends and uploads in progress at once: each is answered with its message.
pub const MAX_SENDS: usize = 64;
/// Most joins in progress at once.
const MAX_JOINS: usize = 4;
/// What an event costs besides its text, in bytes.
pub const EVENT_OVERHEAD: usize = 512;
/// Clients that must reconnect are closed one after another, spread over this many milliseconds.
const RESYNC_SPREAD_MS: u64 = 1000;

/// A Socket.IO client with its session.
pub type Socket = Session<Client>;

/// What the gateway keeps for a socket.
pub struct Client {
    identity: OnceLock<Identity>,
    /// What the client has been sent, if it asked for recovery when it connected.
    pub recovery: OnceLock<Box<Recovery>>,
    // EarlyEvent for one event's bookkeeping, never across an await.
    state: Mutex<State>,
    /// Bytes of events that wait or are being handled.
    queued: AtomicUsize,
    drained: Notify,
    /// Nothing more may be read from the client.
    is_leaving: AtomicBool,
    /// The socket is about to be closed, so that its client reconnects and asks for what it missed.
    is_returning: AtomicBool,
    /// Permits for joins, which read history for the client.
    joins: Semaphore,
    /// Permits for sends.
    pub sends: Semaphore,
}

/// What changes with the client's events.
pub struct State {
    stage: Stage,
    /// The token of the first request, until CONNECT.
    bearer: Option<Box<str>>,
    /// What arrived before CONNECT was answered.
    early: Vec<EarlyEvent>,
    /// The events that wait for their turn.
    pub lanes: Lanes,
    rooms: HashSet<Uuid>,
}

/// How far the client has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has not asked to be connected, or has left.
    Outside,
    /// It has asked, and is not answered yet.
    Connecting,
    /// It is connected.
    Connected,
    /// It is gone.
    Ended,
}

/// What waits until CONNECT is answered.
enum EarlyEvent {
    Event(Uuid, Pending),
    Refusal(Refused),
}

/// An event that was refused.
pub struct Refused {
    /// The id under which the client expects the answer.
    pub ack: Option<u64>,
    /// Why.
    pub error: Error,
}

impl Refused {
    /// What it costs while it waits, in bytes.
    pub fn size(&self) -> usize {
        self.error.detail.len() + EVENT_OVERHEAD
    }
}

impl EarlyEvent {
    fn size(&self) -> usize {
        match self {
            Self::Event(_, event) => event.size,
            Self::Refusal(refused) => refused.size(),
        }
    }
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(bearer: Option<Box<str>>) -> Self {
        let state =
            State { stage: Stage::Outside, bearer, early: Vec::new(), lanes: Lanes::default(), rooms: HashSet::new() };
        Self {
            identity: OnceLock::new(),
            recovery: OnceLock::new(),
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            drained: Notify::new(),
            is_leaving: AtomicBool::new(false),
            is_returning: AtomicBool::new(false),
            joins: Semaphore::new(MAX_JOINS),
            sends: Semaphore::new(MAX_SENDS),
        }
    }

    /// The client's identity, once its token has been verified.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// Sets the identity, once.
    pub fn identify(&self, identity: Identity) {
        let _ = self.identity.set(identity);
    }

    /// The state, for one event's bookkeeping.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether nothing more should be read from the client now.
    pub fn is_paused(&self) -> bool {
        self.is_full() || self.is_leaving.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        queued > MAX_QUEUED || (queued > MAX_UNKNOWN && self.identity.get().is_none())
    }

    /// Whether the socket is about to be closed so that its client reconnects and asks for what it missed.
    pub fn is_returning(&self) -> bool {
        self.is_returning.load(Ordering::Relaxed)
    }

    /// Completes when more may be read from the client.
    pub async fn drained(&self) {
        while self.is_full() {
            let drained = self.drained.notified();
            if self.is_full() {
                drained.await;
            }
        }
    }

    /// Stops reading from the client, and completes when all its events are answered.
    pub async fn finish_events(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        loop {
            let drained = self.drained.notified();
            if self.queued.load(Ordering::Relaxed) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Completes when all that arrived before the client's DISCONNECT is done: an event ends a moment after its
    /// acknowledgement has left.
    pub async fn earlier_events(&self) {
        while self.queued.load(Ordering::Relaxed) > self.state().early.iter().map(EarlyEvent::size).sum::<usize>() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a permit to join a room; the joins of one client are bounded, and none begins while much waits to be
    /// sent to it.
    pub async fn join_permit(&self, outbox: &Outbox) -> Option<SemaphorePermit<'_>> {
        let permit = self.joins.acquire().await.ok()?;
        outbox.space().await;
        outbox.within_share("join").await;
        Some(permit)
    }

    /// Takes the first request's token, if it had one, and stops counting its bytes.
    pub fn take_bearer(&self, outbox: &Outbox) -> Option<Box<str>> {
        let bearer = self.state().bearer.take()?;
        outbox.release(bearer.len());
        Some(bearer)
    }

    /// The client asks to be connected: its events are held until that is answered.
    pub fn begin_connect(&self) {
        self.state().stage = Stage::Connecting;
    }

    /// Takes a valid event: it joins its room's lane, or waits until CONNECT is answered.
    ///
    /// # Errors
    /// When the client has left.
    pub fn take(&self, outbox: &Outbox, room: Uuid, event: Pending) -> Result<(), Malformed> {
        let mut state = self.state();
        match state.stage {
            Stage::Connected => {
                self.count(outbox, event.size);
                state.lanes.push(room, event);
            }
            Stage::Connecting => self.keep_early(outbox, &mut state, EarlyEvent::Event(room, event)),
            Stage::Ended => {}
            Stage::Outside => return Err(Malformed("an event before CONNECT")),
        }
        Ok(())
    }

    /// Takes a refused event: returns it when it can be answered now; stock clients take nothing before CONNECT's
    /// answer.
    pub fn take_refused(&self, outbox: &Outbox, refused: Refused) -> Option<Refused> {
        let mut state = self.state();
        if state.stage != Stage::Connecting {
            return Some(refused);
        }
        self.keep_early(outbox, &mut state, EarlyEvent::Refusal(refused));
        None
    }

    fn keep_early(&self, outbox: &Outbox, state: &mut State, event: EarlyEvent) {
        self.count(outbox, event.size());
        state.early.push(event);
    }

    fn count(&self, outbox: &Outbox, size: usize) {
        self.queued.fetch_add(size, Ordering::Relaxed);
        outbox.hold(size);
    }

    /// So many bytes of events are done.
    pub fn done(&self, outbox: &Outbox, size: usize) {
        outbox.release(size);
        let before = self.queued.fetch_sub(size, Ordering::Relaxed);
        if before == size || (before > MAX_QUEUED && before - size <= MAX_QUEUED) {
            self.drained.notify_waiters();
            outbox.nudge();
        }
    }

    /// Drops the waiting events: their client's identity is no longer valid.
    pub fn drop_events(&self, outbox: &Outbox) {
        let mut state = self.state();
        let early = std::mem::take(&mut state.early).iter().map(EarlyEvent::size).sum::<usize>();
        let size = early + state.lanes.clear();
        drop(state);
        self.queued.fetch_sub(size, Ordering::Relaxed);
        outbox.release(size);
        self.drained.notify_waiters();
    }

    /// The state is connected: more may be read from the client.
    pub fn notify_drained(&self) {
        self.drained.notify_waiters();
    }

    /// Records that the client is in a room; `false` when it is already in `max` rooms (0: no limit) or has
    /// disconnected.
    pub fn remember_room(&self, room: Uuid, max: usize) -> bool {
        let mut state = self.state();
        let within = max == 0 || state.rooms.len() < max || state.rooms.contains(&room);
        if !within {
            LIMITS.hit("rooms_per_socket");
        }
        let admitted = within && matches!(state.stage, Stage::Connecting | Stage::Connected);
        if admitted {
            state.rooms.insert(room);
        }
        admitted
    }

    /// Whether the client is in a room, or joining it.
    pub fn is_in(&self, room: Uuid) -> bool {
        self.state().rooms.contains(&room)
    }

    /// Records that the client is no longer in a room.
    pub fn forget_room(&self, room: Uuid) {
        self.state().rooms.remove(&room);
    }

    /// Records that the client is in no room, and how far it has come; returns the rooms that it was in.
    pub fn leave_rooms(&self, stage: Stage) -> HashSet<Uuid> {
        let mut state = self.state();
        state.stage = stage;
        std::mem::take(&mut state.rooms)
    }
}

impl State {
    /// The client is connected: what it sent meanwhile joins its lanes; returns the refusals among it.
    pub fn connect(&mut self) -> Vec<Refused> {
        self.stage = Stage::Connected;
        let mut refusals = Vec::new();
        for early in std::mem::take(&mut self.early) {
            match early {
                EarlyEvent::Event(room, event) => self.lanes.push(room, event),
                EarlyEvent::Refusal(refused) => refusals.push(refused),
            }
        }
        refusals
    }
}

/// Records that a client is no longer in a room.
pub fn left(socket: &Socket, room: Uuid) {
    socket.client.forget_room(room);
    if let Some(recovery) = socket.client.recovery.get() {
        recovery.left(room, |frames| socket.outbox.push_all(frames));
    }
}

impl Listener for Socket {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn deliver(&self, room: Uuid, first: u64, frames: &[Frame], joined: &Frame) -> bool {
        match self.client.recovery.get() {
            None => self.queue(frames, joined),
            Some(recovery) => recovery.deliver(room, first, frames, |frames| self.queue(frames, &Frame::join(frames))),
        }
    }

    fn flush(&self) {
        self.outbox.flush();
    }

    fn keeps_up(&self) -> bool {
        self.outbox.has_space()
    }

    async fn caught_up(&self) {
        self.outbox.space().await;
    }

    fn arrive(&self, room: Uuid, last_seq: u64, arrival: &Arrival<'_>, missed: &[Frame]) {
        let queue = |frames: &[Frame]| self.outbox.answer(frames);
        match (self.client.recovery.get(), arrival) {
            (Some(recovery), _) => recovery.arrive(room, last_seq, arrival, missed, queue),
            (None, Arrival::Joined { answer: Some(answer), .. }) => {
                queue(&[std::slice::from_ref(answer), missed].concat())
            }
            (None, _) => queue(missed),
        }
    }

    fn evicted(&self, room: Uuid) {
        left(self, room);
    }

    fn resync(self: &Arc<Self>, room: Uuid) {
        // The offset stays as it is: the client can be recovered to exactly that position.
        self.client.forget_room(room);
        if !self.client.is_returning.swap(true, Ordering::Relaxed) {
            let socket = self.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(socket.id() % RESYNC_SPREAD_MS)).await;
                socket.close_now(Ending::Returned);
            });
        }
    }
}

#[cfg(test)]
mod tests;

//! The gateway's data for each socket: its identity, its rooms, and its pending events.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use confab_common::backoff::jitter;
use confab_common::metrics::LIMITS;
use confab_identity::tokens::Identity;
use confab_socketio::net::ClientAddress;
use confab_socketio::outbox::{MAX_UNKNOWN, Outbox};
use confab_socketio::{Ending, Frame, Malformed, Session};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::sleep;
use uuid::Uuid;

use super::credential::Credential;
use super::lanes::{Lanes, Pending, Refused};
use super::recovery::Recovery;
use crate::rooms::hub::{Arrival, Listener};

/// Maximum number of bytes of pending events. Beyond that, the gateway stops reading from the client.
const MAX_QUEUED: usize = 1024 * 1024;
/// Maximum number of sends and uploads of one socket in flight. The answer to each contains its message.
pub const MAX_SENDS: usize = 64;
/// Maximum number of joins of one socket in flight.
const MAX_JOINS: usize = 4;
/// When more bytes than this wait for a client, it receives no events that may be lost.
const MAX_BEFORE_EPHEMERAL: usize = 64 * 1024;
/// Sockets whose clients must reconnect are closed at random times within this time, so that the clients do not all
/// return at once.
const RESYNC_SPREAD: Duration = Duration::from_secs(1);

/// A Socket.IO client with its session.
pub type Socket = Session<Client>;

/// The gateway's data for a socket.
pub struct Client {
    /// The address of the first request.
    pub address: ClientAddress,
    pub credential: Credential,
    /// The client's recovery offset, if it requested recovery in CONNECT.
    pub recovery: OnceLock<Box<Recovery>>,
    // Held for the bookkeeping of one event, never across an await.
    state: Mutex<State>,
    /// Bytes of events that are pending or in progress.
    queued: AtomicUsize,
    drained: Notify,
    /// The gateway drains and reads nothing more from the client.
    is_leaving: AtomicBool,
    /// The gateway is about to close the socket, so that its client reconnects and requests the events that it missed.
    is_returning: AtomicBool,
    /// Permits for joins, which read history.
    joins: Semaphore,
    pub sends: Semaphore,
}

/// The part of the data that the client's events change.
pub struct State {
    stage: Stage,
    /// The token of the first request, until CONNECT.
    bearer: Option<Box<str>>,
    /// The events that arrived before the answer to CONNECT.
    early: Vec<EarlyEvent>,
    /// The events that wait for a handler.
    pub lanes: Lanes,
    rooms: HashSet<Uuid>,
}

/// The stage of a client's connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before CONNECT, or after DISCONNECT.
    Outside,
    /// After CONNECT, before its answer.
    Connecting,
    Connected,
    /// The session has ended or is about to end.
    Ended,
}

/// An event that arrived before the answer to CONNECT.
enum EarlyEvent {
    Event(Uuid, Pending),
    Refusal(Refused),
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
    /// Creates the data of a client before CONNECT; `bearer` is the token of the first request.
    pub fn new(bearer: Option<Box<str>>, address: ClientAddress) -> Self {
        let state =
            State { stage: Stage::Outside, bearer, early: Vec::new(), lanes: Lanes::default(), rooms: HashSet::new() };
        Self {
            address,
            credential: Credential::default(),
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
        self.credential.get()
    }

    /// Sets the identity. Later calls have no effect.
    pub fn identify(&self, identity: Identity) {
        self.credential.set(identity);
    }

    /// Locks the state for the bookkeeping of one event.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Back pressure: whether the gateway should read nothing more from the client now.
    pub fn is_paused(&self) -> bool {
        self.is_full() || self.is_leaving.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        queued > MAX_QUEUED || (queued > MAX_UNKNOWN && self.credential.get().is_none())
    }

    /// Whether the gateway is about to close the socket, so that its client reconnects and requests the missed events.
    pub fn is_returning(&self) -> bool {
        self.is_returning.load(Ordering::Relaxed)
    }

    /// Completes when the gateway may read more from the client.
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

    /// Completes when all events that arrived before the client's DISCONNECT are finished. An event finishes shortly
    /// after its acknowledgement is queued.
    pub async fn earlier_events(&self) {
        while self.queued.load(Ordering::Relaxed) > self.state().early.iter().map(EarlyEvent::size).sum::<usize>() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a permit to join a room. The joins of one socket are bounded, and a join starts only when at most 256
    /// KiB are queued for the client.
    pub async fn join_permit(&self, outbox: &Outbox) -> Option<SemaphorePermit<'_>> {
        let permit = self.joins.acquire().await.ok()?;
        outbox.space().await;
        outbox.within_share("join").await;
        Some(permit)
    }

    /// Removes the token of the first request, if it had one, and stops counting its bytes.
    pub fn take_bearer(&self, outbox: &Outbox) -> Option<Box<str>> {
        let bearer = self.state().bearer.take()?;
        outbox.release(bearer.len());
        Some(bearer)
    }

    /// Records CONNECT. Later events wait for its answer.
    pub fn begin_connect(&self) {
        self.state().go_to(Stage::Connecting);
    }

    /// Queues a valid event in its room's lane, or until CONNECT is answered.
    ///
    /// # Errors
    /// When the client has sent no CONNECT since its last DISCONNECT.
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

    /// Returns a rejected event if it can be answered now. Otherwise queues it until CONNECT is answered, because stock
    /// clients buffer all packets before that answer.
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

    /// Counts the bytes of an event until [`done`](Self::done).
    pub fn count(&self, outbox: &Outbox, size: usize) {
        self.queued.fetch_add(size, Ordering::Relaxed);
        outbox.hold(size);
    }

    /// Records that events of `size` bytes are finished, and resumes reading if the client was paused.
    pub fn done(&self, outbox: &Outbox, size: usize) {
        outbox.release(size);
        let before = self.queued.fetch_sub(size, Ordering::Relaxed);
        if before == size || (before > MAX_QUEUED && before - size <= MAX_QUEUED) {
            self.drained.notify_waiters();
            outbox.nudge();
        }
    }

    /// Drops the pending events, because the client's identity is no longer valid.
    pub fn drop_events(&self, outbox: &Outbox) {
        let mut state = self.state();
        let early = std::mem::take(&mut state.early).iter().map(EarlyEvent::size).sum::<usize>();
        let size = early + state.lanes.clear();
        drop(state);
        self.queued.fetch_sub(size, Ordering::Relaxed);
        outbox.release(size);
        self.drained.notify_waiters();
    }

    /// Resumes reading after the client is connected.
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

    /// Records that the client is in no room and sets its stage; returns the rooms that it was in.
    pub fn leave_rooms(&self, stage: Stage) -> HashSet<Uuid> {
        let mut state = self.state();
        state.go_to(stage);
        std::mem::take(&mut state.rooms)
    }
}

impl State {
    /// A client that has ended stays so: what its other requests do meanwhile brings it back nowhere.
    fn go_to(&mut self, stage: Stage) {
        if self.stage != Stage::Ended {
            self.stage = stage;
        }
    }

    /// Sets the stage to connected and moves the events that arrived before the answer to their lanes. Returns the
    /// rejected events among them.
    pub fn connect(&mut self) -> Vec<Refused> {
        self.go_to(Stage::Connected);
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

/// Removes a room from a client's rooms and from its recovery offset.
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

    fn user(&self) -> Option<Uuid> {
        self.client.identity().map(|identity| identity.user_id)
    }

    fn deliver(&self, room: Uuid, first: u64, frames: &[Frame], joined: &Frame) -> bool {
        match self.client.recovery.get() {
            None => self.queue(frames, joined),
            Some(recovery) => recovery.deliver(room, first, frames, |frames| self.queue(frames, &Frame::join(frames))),
        }
    }

    fn notify(&self, event: &Frame) {
        if self.outbox.bytes() > MAX_BEFORE_EPHEMERAL {
            return;
        }
        match self.client.recovery.get() {
            Some(recovery) => recovery.queue_event(event, |frames| self.outbox.push_all(frames)),
            None => self.outbox.push(event.clone()),
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
        // The offset is unchanged, so the client can be recovered to exactly that position.
        self.client.forget_room(room);
        if !self.client.is_returning.swap(true, Ordering::Relaxed) {
            let socket = self.clone();
            tokio::spawn(async move {
                sleep(jitter(RESYNC_SPREAD)).await;
                socket.close_now(Ending::Returned);
            });
        }
    }
}

#[cfg(test)]
mod tests;

//! The Socket.IO client of a session: its identity, its rooms, and its events, handled in order for each room.

mod connect;
mod held;
mod lanes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use confab_common::metrics::LIMITS;
use confab_common::telemetry::trace::{self, Span};
use confab_common::{Code, Error};
use confab_socketio::Frame;
use confab_socketio::RateLimit;
use confab_socketio::packet::{EventData, Kind, Malformed, Packet};
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use uuid::Uuid;

use self::connect::Auth;
use self::held::Held;
use self::lanes::dispatch;
use super::events::{self, Request};
use super::outbox::{Close, MAX_UNKNOWN};
use super::recovery::Recovery;
use super::session::Session;
use crate::tokens::Identity;

/// Most bytes of events that may wait to be handled; beyond that nothing more is read from the client.
const MAX_QUEUED: usize = 1024 * 1024;
/// Most sends and uploads in progress at once: each is answered with its message.
const MAX_SENDS: usize = 64;
/// Most joins in progress at once.
const MAX_JOINS: usize = 4;
/// What an event costs besides its text, in bytes.
const EVENT_OVERHEAD: usize = 512;
/// Packets a second from a client that has not connected; twice as many in a burst.
const UNKNOWN_PER_SECOND: u32 = 50;

/// A Socket.IO client in the namespace `/`.
pub struct Socket {
    identity: OnceLock<Identity>,
    /// What the client has been sent, if it asked for recovery when it connected.
    pub(super) recovery: OnceLock<Box<Recovery>>,
    // Held for one packet's bookkeeping, never across an await.
    state: Mutex<State>,
    /// Bytes of events that wait or are being handled.
    queued: AtomicUsize,
    drained: Notify,
    /// Nothing more may be read from the client.
    leaving: AtomicBool,
    /// Permits for joins, which read history for the client.
    joins: Semaphore,
    sends: Semaphore,
}

struct State {
    phase: Phase,
    /// The `Authorization` header's token of the first request, until CONNECT.
    bearer: Option<Box<str>>,
    /// The client has asked for a namespace that does not exist.
    has_asked_elsewhere: bool,
    partial: Option<Box<Partial>>,
    /// What arrived before CONNECT was answered.
    held: Vec<Held>,
    /// Events that wait behind another event of the same room.
    lanes: HashMap<Uuid, VecDeque<Event>>,
    /// Lanes without a task: they start when everything that arrived together has been read.
    starting: Vec<Uuid>,
    rooms: HashSet<Uuid>,
    rate_limit: RateLimit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Connecting,
    Connected,
    /// The client has disconnected, and may connect again.
    Left,
    Ended,
}

/// An event that waits for its attachments.
struct Partial {
    text: String,
    attachments: Vec<Bytes>,
    bytes: usize,
    expected: usize,
}

/// A valid event on its way to its handler.
pub struct Event {
    /// The id under which the client expects the acknowledgement.
    pub ack: Option<u64>,
    /// What the client asks for.
    pub request: Request,
    /// When it must be answered.
    pub deadline: Instant,
    /// Its trace, which begins here.
    pub span: Span,
    size: usize,
}

impl Socket {
    /// A client that has not connected yet.
    pub fn new(bearer: Option<Box<str>>) -> Self {
        let state = State {
            phase: Phase::New,
            bearer,
            has_asked_elsewhere: false,
            partial: None,
            held: Vec::new(),
            lanes: HashMap::new(),
            starting: Vec::new(),
            rooms: HashSet::new(),
            rate_limit: RateLimit::new(UNKNOWN_PER_SECOND),
        };
        Self {
            identity: OnceLock::new(),
            recovery: OnceLock::new(),
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            drained: Notify::new(),
            leaving: AtomicBool::new(false),
            joins: Semaphore::new(MAX_JOINS),
            sends: Semaphore::new(MAX_SENDS),
        }
    }

    /// The client's identity, once CONNECT has been answered.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// Whether nothing more should be read from the client now.
    pub fn is_paused(&self) -> bool {
        self.is_full() || self.leaving.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        queued > MAX_QUEUED || (queued > MAX_UNKNOWN && self.identity.get().is_none())
    }

    /// Waits for a permit to join a room; the joins of one client are bounded, and none begins while much waits to be
    /// sent to it.
    pub async fn join_turn(&self, session: &Session) -> Option<SemaphorePermit<'_>> {
        let turn = self.joins.acquire().await.ok()?;
        session.outbox.roomy().await;
        session.outbox.within_share("join").await;
        Some(turn)
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
        self.leaving.store(true, Ordering::Relaxed);
        loop {
            let drained = self.drained.notified();
            if self.queued.load(Ordering::Relaxed) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Takes the `Authorization` header's token of the first request, if it had one, and stops counting its bytes.
    fn take_bearer(&self, session: &Session) -> Option<Box<str>> {
        let bearer = self.state.lock().bearer.take()?;
        session.outbox.release(bearer.len());
        Some(bearer)
    }

    /// Counts an Engine.IO packet.
    ///
    /// # Errors
    /// When a client that has not connected has sent too many.
    pub(super) fn admit(&self) -> Result<(), Malformed> {
        if self.identity.get().is_some() {
            return Ok(());
        }
        let mut state = self.state.lock();
        match state.phase == Phase::New && !state.rate_limit.admit() {
            true => Err(too_much()),
            false => Ok(()),
        }
    }

    /// Takes the text of a packet.
    pub(super) fn receive(&self, session: &Arc<Session>, text: &str) -> Result<(), Malformed> {
        let packet = Packet::parse(text)?;
        let mut state = self.state.lock();
        if state.partial.is_some() {
            return Err(Malformed("text while an attachment is awaited"));
        }
        if packet.namespace != "/" {
            if packet.kind == Kind::Connect {
                let phase = state.phase;
                match phase {
                    Phase::New if std::mem::replace(&mut state.has_asked_elsewhere, true) => return Err(too_much()),
                    Phase::Connecting | Phase::Connected if !state.rate_limit.admit() => {
                        LIMITS.hit("events_per_second");
                        return Ok(());
                    }
                    _ => {}
                }
                let error = json!({ "message": "Invalid namespace", "data": { "code": "not_found", "status": 404 } });
                session.outbox.push(Frame::connect_error(packet.namespace, &error));
            }
            return Ok(());
        }
        if packet.attachments > 0 {
            if state.phase == Phase::New {
                return Err(Malformed("an attachment before CONNECT"));
            }
            session.outbox.hold(text.len());
            state.partial =
                Some(Box::new(Partial { text: text.to_owned(), attachments: Vec::new(), bytes: text.len(), expected: packet.attachments }));
            return Ok(());
        }
        self.handle(session, state, &packet, &[])
    }

    /// Takes an attachment.
    pub(super) fn receive_attachment(&self, session: &Arc<Session>, data: Bytes) -> Result<(), Malformed> {
        let mut state = self.state.lock();
        let partial = state.partial.as_mut().ok_or(Malformed("an attachment that none awaits"))?;
        session.outbox.hold(data.len());
        partial.bytes += data.len();
        if partial.bytes > self.max_packet(session) {
            LIMITS.hit("packet");
            return Err(Malformed("attachments over the limit"));
        }
        partial.attachments.push(data);
        if partial.attachments.len() < partial.expected {
            return Ok(());
        }
        let Some(partial) = state.forget_partial(session) else { return Ok(()) };
        self.handle(session, state, &Packet::parse(&partial.text)?, &partial.attachments)
    }

    /// Most bytes of one packet from the client.
    pub(super) fn max_packet(&self, session: &Session) -> usize {
        let most = session.edge.config.max_packet;
        if self.identity.get().is_some() { most } else { most.min(MAX_UNKNOWN) }
    }

    fn handle(
        &self,
        session: &Arc<Session>,
        mut state: MutexGuard<'_, State>,
        packet: &Packet<'_>,
        attachments: &[Bytes],
    ) -> Result<(), Malformed> {
        match (packet.kind, state.phase) {
            (Kind::Connect, Phase::New) => {
                state.phase = Phase::Connecting;
                let (span, connecting) =
                    (Span::root(trace::Kind::Server, "connect"), connect::connect(session.clone(), Auth::read(packet.data)));
                tokio::spawn(async move { span.instrument(connecting).await });
                Ok(())
            }
            (Kind::Event, Phase::Connecting | Phase::Connected) => {
                let data = EventData::parse(packet.data)?;
                let request = match state.rate_limit.admit() {
                    true => events::parse(&data.name, data.argument, attachments),
                    false => {
                        LIMITS.hit("events_per_second");
                        Err(Error::new(Code::RateLimited, "too many events"))
                    }
                };
                let (room, request) = match request {
                    Ok(valid) => valid,
                    Err(error) if state.phase == Phase::Connecting => {
                        // Stock clients take nothing before CONNECT's answer.
                        self.hold(session, &mut state, Held::Refusal(packet.id, error));
                        return Ok(());
                    }
                    Err(error) => {
                        drop(state);
                        events::refuse(session, packet.id, &error);
                        return Ok(());
                    }
                };
                let deadline = Instant::now() + session.edge.clients.call.deadline;
                let size = packet.data.len() + attachments.iter().map(Bytes::len).sum::<usize>() + EVENT_OVERHEAD;
                let span = Span::root(trace::Kind::Server, request.name());
                span.set("confab.room.id", || room.to_string());
                let event = Event { ack: packet.id, request, deadline, span, size };
                if state.phase == Phase::Connecting {
                    self.hold(session, &mut state, Held::Event(room, event));
                    return Ok(());
                }
                self.queued.fetch_add(event.size, Ordering::Relaxed);
                session.outbox.hold(event.size);
                dispatch(&mut state, room, event);
                Ok(())
            }
            (Kind::Connect, Phase::Left) if state.rate_limit.admit() => {
                state.phase = Phase::Connecting;
                tokio::spawn(connect::connect_again(session.clone(), Auth::read(packet.data)));
                Ok(())
            }
            (Kind::Disconnect, Phase::Connected) => {
                drop(state);
                self.leave_rooms(session, Phase::Left);
                Ok(())
            }
            (Kind::Disconnect, Phase::New | Phase::Connecting) => {
                drop(state);
                self.leave_all(session);
                session.outbox.close(Close::Flushed);
                Ok(())
            }
            (Kind::Ack, _) | (_, Phase::Ended) | (Kind::Disconnect, Phase::Left) => Ok(()),
            (Kind::Connect, _) => Err(Malformed("CONNECT again")),
            (Kind::Event, Phase::New | Phase::Left) => Err(Malformed("an event before CONNECT")),
        }
    }

    /// Records that the client is in a room; `false` when it is already in `max` rooms (0: no limit) or has
    /// disconnected.
    pub fn remember_room(&self, room: Uuid, max: usize) -> bool {
        let mut state = self.state.lock();
        let within = max == 0 || state.rooms.len() < max || state.rooms.contains(&room);
        if !within {
            LIMITS.hit("rooms_per_socket");
        }
        let admitted = within && matches!(state.phase, Phase::Connecting | Phase::Connected);
        if admitted {
            state.rooms.insert(room);
        }
        admitted
    }

    /// Whether the client is in a room, or joining it.
    pub fn is_in(&self, room: Uuid) -> bool {
        self.state.lock().rooms.contains(&room)
    }

    /// Records that the client is no longer in a room.
    pub fn forget_room(&self, room: Uuid) {
        self.state.lock().rooms.remove(&room);
    }

    /// Removes the client from every room for good.
    pub(super) fn leave_all(&self, session: &Session) {
        self.leave_rooms(session, Phase::Ended);
    }

    fn leave_rooms(&self, session: &Session, phase: Phase) {
        let rooms = {
            let mut state = self.state.lock();
            state.phase = phase;
            state.forget_partial(session);
            std::mem::take(&mut state.rooms)
        };
        for room in rooms {
            session.edge.hub.leave(room, crate::rooms::hub::Listener::id(session));
        }
    }
}

impl State {
    /// Drops an event that waits for attachments and stops counting it.
    fn forget_partial(&mut self, session: &Session) -> Option<Box<Partial>> {
        let partial = self.partial.take()?;
        session.outbox.release(partial.bytes);
        Some(partial)
    }
}

fn too_much() -> Malformed {
    LIMITS.hit("before_connect");
    Malformed("too much before CONNECT")
}

#[cfg(test)]
mod tests;

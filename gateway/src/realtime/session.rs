//! An Engine.IO session: one client, over whichever transport it uses now.

mod heartbeat;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_common::metrics::LIMITS;
use confab_socketio::Frame;
use confab_socketio::packet::Malformed;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::Realtime;
use super::outbox::{Close, Outbox};
use super::polling::LastPoll;
use super::socket::Socket;
use crate::address::ClientAddress;
use crate::metrics::METRICS;
use crate::rooms::hub::{Arrival, Listener};

pub use heartbeat::Heartbeat;

/// Clients that must reconnect are closed one after another, spread over this many milliseconds.
const RESYNC_SPREAD_MS: u64 = 1000;
/// A client that takes nothing of what waits for it for this long is closed.
pub const STUCK: Duration = Duration::from_secs(10);
/// Longest ping from a client that is answered, in bytes.
const MAX_PING: usize = 125;

/// A session.
pub struct Session {
    id: u64,
    /// A secret between this gateway and the client: it authenticates the client's requests.
    sid: Box<str>,
    /// What all sessions share.
    pub edge: Arc<Realtime>,
    /// Frames that wait to be sent.
    pub outbox: Outbox,
    /// Lets a repeated poll get the same answer.
    pub last_poll: LastPoll,
    /// The Socket.IO client within.
    pub socket: Socket,
    /// How many packets the client has sent, as signs of life.
    seen: AtomicU64,
    /// The session is about to be closed, so that its client reconnects.
    returning: AtomicBool,
    /// The client has closed the session.
    given_up: AtomicBool,
    transport: Mutex<Transport>,
    /// Whether the transport is a WebSocket; never reset.
    on_websocket: AtomicBool,
}

/// The transport of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Long-polling; whether a GET is waiting.
    Polling {
        /// A GET is waiting.
        reading: bool,
    },
    /// Long-polling, while a WebSocket is being tried.
    Probing {
        /// A GET is waiting.
        reading: bool,
    },
    /// A WebSocket.
    WebSocket,
    /// None: the session is over.
    Closed,
}

impl Transport {
    /// Counts a session that starts or stops using this transport.
    fn count(self, by: f64) {
        match self {
            Self::Polling { .. } | Self::Probing { .. } => METRICS.polling.increment(by),
            Self::WebSocket => METRICS.websocket.increment(by),
            Self::Closed => {}
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open<'a> {
    sid: &'a str,
    upgrades: &'a [&'a str],
    ping_interval: u64,
    ping_timeout: u64,
    max_payload: usize,
}

impl Session {
    /// Opens and registers a session for a client at that address, and queues its first packet; `None` when this
    /// gateway is draining. `bearer` is the token of the first request.
    pub fn open(edge: &Arc<Realtime>, transport: Transport, address: ClientAddress, bearer: Option<Box<str>>) -> Option<Arc<Self>> {
        let held = bearer.as_ref().map_or(0, |bearer| bearer.len());
        let session = Arc::new(Self {
            id: edge.registry.next_id(),
            sid: [edge.forward.as_ref().map_or("", |forward| forward.own()), &secret()].concat().into(),
            edge: edge.clone(),
            outbox: Outbox::of_unknown(edge.memory.clone()),
            last_poll: LastPoll::default(),
            socket: Socket::new(bearer),
            seen: AtomicU64::new(0),
            returning: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            transport: Mutex::new(transport),
            on_websocket: AtomicBool::new(transport == Transport::WebSocket),
        });
        transport.count(1.0);
        session.outbox.hold(held);
        if let Some(oldest) = edge.registry.insert(&session, address, edge.config.max_pending_sessions) {
            LIMITS.hit("pending_sessions");
            oldest.finish();
        }
        if edge.is_leaving() {
            // Registered before the check: a session that opens at this moment is either refused here or closed by the
            // drain.
            session.finish();
            return None;
        }
        session.outbox.push(Frame::open(&Open {
            sid: &session.sid,
            upgrades: if transport == Transport::WebSocket { &[] } else { &["websocket"] },
            ping_interval: edge.config.ping_interval.as_millis() as u64,
            ping_timeout: edge.config.ping_timeout.as_millis() as u64,
            // Clients may use 32-bit integers.
            max_payload: edge.config.max_packet.min(i32::MAX as usize),
        }));
        Some(session)
    }

    /// The secret id.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// The current transport.
    pub fn transport(&self) -> MutexGuard<'_, Transport> {
        self.transport.lock()
    }

    /// Begins to probe a WebSocket; `false` when the session is not polling.
    pub fn begin_probe(&self) -> bool {
        let mut transport = self.transport();
        let Transport::Polling { reading } = *transport else { return false };
        *transport = Transport::Probing { reading };
        drop(transport);
        // A waiting GET must be answered soon.
        self.outbox.nudge();
        true
    }

    /// Upgrades to the probed WebSocket; `false` while a GET waits, or when the session is over.
    pub fn upgrade(&self) -> bool {
        let mut transport = self.transport();
        let upgraded = *transport == Transport::Probing { reading: false };
        if upgraded {
            transport.count(-1.0);
            *transport = Transport::WebSocket;
            transport.count(1.0);
            self.on_websocket.store(true, Ordering::Relaxed);
            self.last_poll.forget(&self.outbox);
        }
        upgraded
    }

    /// Returns to polling after a failed probe.
    pub fn probe_failed(&self) {
        let mut transport = self.transport();
        if let Transport::Probing { reading } = *transport {
            *transport = Transport::Polling { reading };
        }
    }

    /// Handles an Engine.IO text packet from the client.
    ///
    /// # Errors
    /// When it is malformed; the caller closes the session.
    pub fn receive(self: &Arc<Self>, packet: &str) -> Result<(), Malformed> {
        self.touch();
        self.socket.admit()?;
        match packet.as_bytes().first() {
            Some(b'4') => self.socket.receive(self, &packet[1..]),
            Some(b'3' | b'6') => Ok(()),
            Some(b'2') if packet.len() > MAX_PING => Err(Malformed("a long ping")),
            Some(b'2') => {
                self.outbox.push(Frame::engine(&format!("3{}", packet.get(1..).unwrap_or_default())));
                Ok(())
            }
            Some(b'1') => {
                self.given_up.store(true, Ordering::Relaxed);
                self.outbox.close(Close::Flushed);
                Ok(())
            }
            _ => Err(Malformed("unknown Engine.IO packet")),
        }
    }

    /// Handles a binary message, which can only be an attachment.
    ///
    /// # Errors
    /// When no attachment is expected.
    pub fn receive_binary(self: &Arc<Self>, data: Bytes) -> Result<(), Malformed> {
        self.touch();
        self.socket.receive_attachment(self, data)
    }

    /// Records a sign of life.
    pub fn touch(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues an event that belongs to no room.
    pub fn tell(&self, name: &str, argument: &impl Serialize) {
        let event = Frame::event(name, argument);
        match self.socket.recovery.get() {
            Some(recovery) => recovery.tell(&event, |frames| self.outbox.push_all(frames)),
            None => self.outbox.push(event),
        }
    }

    /// Records that the client is no longer in a room.
    pub fn left(&self, room: Uuid) {
        self.socket.forget_room(room);
        if let Some(recovery) = self.socket.recovery.get() {
            recovery.left(room, |frames| self.outbox.push_all(frames));
        }
    }

    /// Queues frames; `true` asks the caller to flush them soon.
    fn queue(&self, frames: &[Frame], joined: &Frame) -> bool {
        if self.on_websocket.load(Ordering::Relaxed) {
            self.outbox.push_to_flush(std::slice::from_ref(joined))
        } else {
            self.outbox.push_all(frames);
            false
        }
    }

    /// Ends the session with an error; the client receives the code and does not reconnect on its own.
    pub fn end(&self, code: &'static str) {
        self.socket.leave_all(self);
        self.socket.drop_events(self);
        self.outbox.end(&[Frame::event("sessionEnded", &serde_json::json!({ "code": code })), Frame::engine("41")]);
    }

    /// Drops what is held for the client and has its transport closed, because all clients together hold too much.
    pub fn give_up(&self) {
        self.last_poll.forget(&self.outbox);
        self.socket.leave_all(self);
        self.socket.drop_events(self);
        self.outbox.give_up("total");
    }

    /// Moves the client to another gateway: stops reading from it, sends what is queued, then closes its transport.
    pub async fn go_away(&self, within: Duration) {
        self.tell("serverGoingAway", &serde_json::json!({ "retryAfterMs": 1000 }));
        let _ = timeout(within, self.socket.finish_events()).await;
        self.outbox.close(Close::Flushed);
    }

    /// Whether the client has closed the session.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Whether the session is about to be closed so that its client reconnects and asks for what it missed.
    pub fn is_returning(&self) -> bool {
        self.returning.load(Ordering::Relaxed)
    }

    /// The transport is gone: removes all references to the session.
    pub fn finish(&self) {
        let transport = std::mem::replace(&mut *self.transport(), Transport::Closed);
        if transport == Transport::Closed {
            return;
        }
        transport.count(-1.0);
        tracing::debug!(session = self.id, ?transport, user = self.socket.identity().map(|identity| &identity.user.id), "session ended");
        self.outbox.finish();
        self.edge.registry.remove(self, self.socket.identity());
        self.socket.leave_all(self);
    }
}

impl Listener for Session {
    fn id(&self) -> u64 {
        self.id
    }

    fn deliver(&self, room: Uuid, first: u64, frames: &[Frame], joined: &Frame) -> bool {
        match self.socket.recovery.get() {
            None => self.queue(frames, joined),
            Some(recovery) => recovery.deliver(room, first, frames, |frames| self.queue(frames, &Frame::join(frames))),
        }
    }

    fn flush(&self) {
        self.outbox.flush();
    }

    fn keeps_up(&self) -> bool {
        self.outbox.is_roomy()
    }

    async fn caught_up(&self) {
        self.outbox.roomy().await;
    }

    fn arrive(&self, room: Uuid, last_seq: u64, arrival: &Arrival<'_>, missed: &[Frame]) {
        let queue = |frames: &[Frame]| self.outbox.answer(frames);
        match (self.socket.recovery.get(), arrival) {
            (Some(recovery), _) => recovery.arrive(room, last_seq, arrival, missed, queue),
            (None, Arrival::Joined { answer: Some(answer), .. }) => queue(&[std::slice::from_ref(answer), missed].concat()),
            (None, _) => queue(missed),
        }
    }

    fn evicted(&self, room: Uuid) {
        self.left(room);
    }

    fn resync(self: &Arc<Self>, room: Uuid) {
        // The offset stays as it is: the client can be recovered to exactly that position.
        self.socket.forget_room(room);
        if !self.returning.swap(true, Ordering::Relaxed) {
            let session = self.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(session.id % RESYNC_SPREAD_MS)).await;
                session.outbox.close(Close::Now);
            });
        }
    }
}

/// 128 random bits.
pub fn secret() -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())
}

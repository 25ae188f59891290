//! An Engine.IO session: one client, over whichever transport it uses now. It holds what the application keeps for the
//! client, and never the server or the application: handlers receive those beside it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use uuid::Uuid;

use crate::ending::Ending;
use crate::frame::Frame;
use crate::last_poll::LastPoll;
use crate::outbox::{Close, Outbox};
use crate::protocol::Protocol;
use crate::transport::Transport;

/// A session, with what the application keeps for its client.
pub struct Session<C> {
    id: u64,
    /// A secret between this server and the client: it authenticates the client's requests.
    sid: Box<str>,
    /// Frames that wait to be sent.
    pub outbox: Outbox,
    /// What the application keeps for the client.
    pub client: C,
    pub(crate) last_poll: LastPoll,
    pub(crate) protocol: Protocol,
    /// How many packets the client has sent, as signs of life.
    seen: AtomicU64,
    is_known: AtomicBool,
    /// The client has closed the session.
    is_given_up: AtomicBool,
    ending: AtomicU8,
    transport: Mutex<Transport>,
    /// Whether the transport is a WebSocket; never reset.
    on_websocket: AtomicBool,
}

impl<C> Session<C> {
    pub(crate) fn new(
        id: u64,
        sid: Box<str>,
        transport: Transport,
        outbox: Outbox,
        protocol: Protocol,
        client: C,
    ) -> Self {
        transport.count(1.0);
        Self {
            id,
            sid,
            outbox,
            client,
            last_poll: LastPoll::default(),
            protocol,
            seen: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            ending: AtomicU8::new(0),
            transport: Mutex::new(transport),
            on_websocket: AtomicBool::new(transport == Transport::WebSocket),
        }
    }

    /// A number that is unique among the sessions of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The secret id.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        *self.transport() == Transport::Closed
    }

    /// Answers CONNECT: the socket is connected, and this frame is its first. With a `pid`, the client is one that can be
    /// recovered (<https://socket.io/docs/v4/connection-state-recovery>). `false` when it has disconnected meanwhile.
    pub fn accept(&self, pid: Option<&str>) -> bool {
        let accepted = self.protocol.accept();
        if accepted {
            // Stock clients buffer anything before this frame, and would keep it for the next connection if this one broke.
            self.outbox.push(Frame::connected(&secret(), pid));
        }
        accepted
    }

    /// Refuses CONNECT, with the object that the client receives in `connect_error`, and closes the session after it.
    pub fn refuse(&self, error: &impl Serialize) {
        self.outbox.push(Frame::connect_error("/", error));
        self.close_after_flush(Ending::Refused);
    }

    /// Queues an event with one argument and its attachments, at most 10. A client that leaves over 1 MiB of events unread is
    /// closed; it reconnects by itself.
    pub fn emit(&self, name: &str, argument: &impl Serialize, attachments: &[Bytes]) {
        if attachments.is_empty() {
            self.outbox.push(Frame::event(name, argument));
        } else {
            self.outbox.push_all(&Frame::event_with(name, argument, attachments));
        }
    }

    /// Acknowledges the event with this id. Acknowledgements have a bound of 2 MiB of their own.
    pub fn acknowledge(&self, id: u64, argument: &impl Serialize, attachments: &[Bytes]) {
        if attachments.is_empty() {
            self.outbox.answer(&[Frame::ack(id, argument)]);
        } else {
            self.outbox.answer(&Frame::ack_with(id, argument, attachments));
        }
    }

    /// Replaces everything that waits with an event, disconnects the socket, and closes the session. Stock clients do not
    /// reconnect by themselves then.
    pub fn disconnect(&self, name: &str, argument: &impl Serialize) {
        self.because(Ending::Disconnected);
        self.outbox.release(self.protocol.end());
        self.outbox.disconnect(&[Frame::event(name, argument), Frame::engine("41")]);
    }

    /// Closes the session once everything queued is sent.
    pub fn close_after_flush(&self, ending: Ending) {
        self.because(ending);
        self.outbox.close(Close::Flushed);
    }

    /// Closes the session at once.
    pub fn close_now(&self, ending: Ending) {
        self.because(ending);
        self.outbox.close(Close::Now);
    }

    /// Drops what is held for the client and closes the session, because all clients together hold too much.
    pub(crate) fn evict(&self) {
        self.because(Ending::OverBudget);
        self.last_poll.forget(&self.outbox);
        self.outbox.evict("total");
    }

    /// Queues frames of an event that many clients receive, either one by one or as the one piece `joined`; `true` asks the
    /// caller to flush the outbox soon.
    pub fn queue(&self, frames: &[Frame], joined: &Frame) -> bool {
        if self.on_websocket.load(Ordering::Relaxed) {
            self.outbox.push_to_flush(std::slice::from_ref(joined))
        } else {
            self.outbox.push_all(frames);
            false
        }
    }

    /// Whether the client has been identified.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    pub(crate) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
        self.outbox.set_known();
    }

    /// Records why the session ends; the first cause counts.
    pub(crate) fn because(&self, ending: Ending) {
        let _ = self.ending.compare_exchange(0, ending as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why the session ends.
    pub(crate) fn ending(&self) -> Ending {
        Ending::of_number(self.ending.load(Ordering::Relaxed)).unwrap_or_else(|| self.outbox.cause())
    }

    /// The current transport.
    pub(crate) fn transport(&self) -> MutexGuard<'_, Transport> {
        self.transport.lock()
    }

    /// Ends the transport; returns the one until now.
    pub(crate) fn end_transport(&self) -> Transport {
        let before = std::mem::replace(&mut *self.transport(), Transport::Closed);
        before.count(-1.0);
        before
    }

    /// Begins to probe a WebSocket; `false` when the session is not polling.
    pub(crate) fn begin_probe(&self) -> bool {
        let mut transport = self.transport();
        let Transport::Polling { reading } = *transport else { return false };
        *transport = Transport::Probing { reading };
        drop(transport);
        // A waiting GET must be answered soon.
        self.outbox.nudge();
        true
    }

    /// Upgrades to the probed WebSocket; `false` while a GET waits, or when the session is over.
    pub(crate) fn upgrade(&self) -> bool {
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
    pub(crate) fn probe_failed(&self) {
        let mut transport = self.transport();
        if let Transport::Probing { reading } = *transport {
            *transport = Transport::Polling { reading };
        }
    }

    /// Records a sign of life.
    pub(crate) fn touch(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// How many signs of life there have been.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// The client closes the session.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
        self.close_after_flush(Ending::ClientClosed);
    }

    /// Whether the client has closed the session.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}

/// 128 random bits, in 22 characters.
pub(crate) fn secret() -> String {
    URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())
}

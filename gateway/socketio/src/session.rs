//! An Engine.IO session: one client on its current transport. A session contains the application's data for the client,
//! but neither the server nor the application: handlers receive those as separate arguments.

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

/// An Engine.IO session with the application's data `C` for its client.
/// <https://github.com/socketio/engine.io-protocol#handshake>
pub struct Session<C> {
    id: u64,
    /// A secret of this server and the client: it authenticates the client's requests.
    sid: Box<str>,
    /// The frames that wait for the client, and the count of the bytes held for it.
    pub outbox: Outbox,
    /// The application's data for the client.
    pub client: C,
    pub(crate) last_poll: LastPoll,
    pub(crate) protocol: Protocol,
    /// The number of packets and reads from the client, for the heartbeat.
    seen: AtomicU64,
    is_known: AtomicBool,
    is_closed_by_client: AtomicBool,
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
            is_closed_by_client: AtomicBool::new(false),
            ending: AtomicU8::new(0),
            transport: Mutex::new(transport),
            on_websocket: AtomicBool::new(transport == Transport::WebSocket),
        }
    }

    /// The number of the session, unique in this process. It is not secret: use it in logs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The secret session id: 22 characters, in a cluster 8 more for the node. Never log it.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        *self.transport() == Transport::Closed
    }

    /// Accepts CONNECT and queues the answer. A `pid` announces that the client can be recovered
    /// (<https://socket.io/docs/v4/connection-state-recovery>). `false` when the client has disconnected meanwhile.
    pub fn accept(&self, pid: Option<&str>) -> bool {
        let accepted = self.protocol.accept();
        if accepted {
            // Must be the first frame: stock clients buffer earlier frames, and keep them for the next connection if
            // this one breaks.
            self.outbox.push(Frame::connected(&secret(), pid));
        }
        accepted
    }

    /// Rejects CONNECT with the object that the client receives in `connect_error`, then closes the session.
    pub fn refuse(&self, error: &impl Serialize) {
        self.outbox.push(Frame::connect_error("/", error));
        self.close_after_flush(Ending::Refused);
    }

    /// Queues an event with one argument and its attachments, at most 10. Above 1 MiB of unread events, the session
    /// ends with [`Ending::Overflow`], and a stock client reconnects.
    pub fn emit(&self, name: &str, argument: &impl Serialize, attachments: &[Bytes]) {
        if attachments.is_empty() {
            self.outbox.push(Frame::event(name, argument));
        } else {
            self.outbox.push_all(&Frame::event_with(name, argument, attachments));
        }
    }

    /// Queues the acknowledgement of the event with this id, with at most 10 attachments. Above 2 MiB of unread
    /// acknowledgements, the session ends with [`Ending::Overflow`].
    pub fn acknowledge(&self, id: u64, argument: &impl Serialize, attachments: &[Bytes]) {
        if attachments.is_empty() {
            self.outbox.answer(&[Frame::ack(id, argument)]);
        } else {
            self.outbox.answer(&Frame::ack_with(id, argument, attachments));
        }
    }

    /// Replaces all queued frames with this event and a DISCONNECT packet, then closes the session. Stock clients do
    /// not reconnect after DISCONNECT.
    pub fn disconnect(&self, name: &str, argument: &impl Serialize) {
        self.record_ending(Ending::Disconnected);
        self.end_protocol();
        self.outbox.disconnect(&[Frame::event(name, argument), Frame::engine("41")]);
    }

    /// Closes the session after all queued frames are sent, for at most 2 s on a WebSocket.
    pub fn close_after_flush(&self, ending: Ending) {
        self.record_ending(ending);
        self.outbox.close(Close::Flushed);
    }

    /// Closes the session immediately; queued frames are dropped.
    pub fn close_now(&self, ending: Ending) {
        self.record_ending(ending);
        self.outbox.close(Close::Now);
    }

    /// Drops the bytes held for the client and closes the session, because the memory limit of all clients is exceeded.
    pub(crate) fn evict(&self) {
        self.record_ending(Ending::OverBudget);
        self.last_poll.forget(&self.outbox);
        self.outbox.evict("total");
    }

    /// Queues an event for one of many recipients: `joined` on a WebSocket, `frames` for polling, where `joined` is
    /// [`Frame::join`] of `frames`. When this returns `true`, the caller must call
    /// [`Outbox::flush`](crate::outbox::Outbox::flush) soon.
    pub fn queue(&self, frames: &[Frame], joined: &Frame) -> bool {
        if self.on_websocket.load(Ordering::Relaxed) {
            self.outbox.push_to_flush(std::slice::from_ref(joined))
        } else {
            self.outbox.push_all(frames);
            false
        }
    }

    /// Whether the application has identified the client.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    pub(crate) fn set_known(&self) {
        self.is_known.store(true, Ordering::Release);
        self.outbox.set_known();
    }

    /// Records the cause of the end. The first cause counts.
    pub(crate) fn record_ending(&self, ending: Ending) {
        let _ = self.ending.compare_exchange(0, ending as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn ending(&self) -> Ending {
        Ending::of_number(self.ending.load(Ordering::Relaxed))
            .or_else(|| self.outbox.cause())
            .unwrap_or(Ending::ConnectionLost)
    }

    /// Takes no more packets, and releases the bytes of an incomplete one.
    pub(crate) fn end_protocol(&self) {
        self.outbox.release(self.protocol.end());
    }

    pub(crate) fn transport(&self) -> MutexGuard<'_, Transport> {
        self.transport.lock()
    }

    /// Sets the transport to [`Transport::Closed`]; returns the previous one.
    pub(crate) fn end_transport(&self) -> Transport {
        let before = std::mem::replace(&mut *self.transport(), Transport::Closed);
        before.count(-1.0);
        before
    }

    /// Starts the probe of a WebSocket; `false` when the session does not poll.
    /// <https://github.com/socketio/engine.io-protocol#upgrade>
    pub(crate) fn begin_probe(&self) -> bool {
        let mut transport = self.transport();
        let Transport::Polling { reading } = *transport else { return false };
        *transport = Transport::Probing { reading };
        drop(transport);
        // The client upgrades only after its pending GET is answered.
        self.outbox.nudge();
        true
    }

    /// Upgrades to the probed WebSocket; `false` while a GET is pending, or when the session has ended.
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

    /// Records a packet from the client, for the heartbeat.
    pub(crate) fn touch(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of calls of [`touch`](Self::touch).
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Closes the session at the client's request.
    pub(crate) fn close_by_client(&self) {
        self.is_closed_by_client.store(true, Ordering::Relaxed);
        self.close_after_flush(Ending::ClientClosed);
    }

    pub(crate) fn is_closed_by_client(&self) -> bool {
        self.is_closed_by_client.load(Ordering::Relaxed)
    }
}

/// 128 random bits, in 22 characters.
pub(crate) fn secret() -> String {
    URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())
}

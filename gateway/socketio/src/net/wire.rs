//! Tracks which bytes the peer of a connection has acknowledged (`TCP_INFO` of Linux). A load balancer repeats a GET
//! only if it has not received the answer, and its TCP has acknowledged all bytes that it has received.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uapi::c::{IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_INFO, linger};

use super::requests::Requests;
use crate::budget::Cut;

/// How long the server waits for the acknowledgement of an answer: 1 s. TCP may delay an acknowledgement by 0.5 s (RFC
/// 1122 section 4.2.3.2); the rest is for the network.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// How often the server checks the acknowledgement of an answer.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The state of one HTTP connection: the progress of its requests, and the acknowledgement of one watched answer.
pub struct Wire {
    /// The progress of the requests of the connection.
    pub requests: Requests,
    /// Bytes of heads that have arrived since the last request began.
    arrived: AtomicUsize,
    /// Notified when the connection must end immediately.
    cut: Notify,
    progress: AtomicU8,
    // Held while reading the state of the TCP socket, never across an await.
    state: Mutex<State>,
}

/// The watched answer has not been written.
const WAITING: u8 = 1;
/// A part of the watched answer is written.
const WRITING: u8 = 2;
/// The watched answer is written completely, or no answer is watched.
const WRITTEN: u8 = 0;

struct State {
    /// The TCP socket, until it is closed.
    socket: Option<RawFd>,
    /// The number of bytes that were acknowledged when the TCP socket was closed.
    acknowledged: u64,
    /// The number of bytes written up to the end of the watched answer; 0: no answer has been watched.
    end: u64,
}

impl Wire {
    /// Starts the request that has just arrived over the connection. Returns its answer, and the number of bytes of its
    /// head, which may include the beginning of its body.
    pub fn next_answer(self: &Arc<Self>, has_body: bool) -> (Answer, usize) {
        let answer = Answer { number: self.requests.begin(has_body), wire: self.clone() };
        (answer, self.arrived.swap(0, Ordering::Relaxed))
    }

    /// Records received bytes; `false` when they belong to a body, whose reader counts them.
    pub fn arrived(&self, bytes: usize) -> bool {
        let is_head = !self.requests.has_body();
        if is_head {
            self.arrived.fetch_add(bytes, Ordering::Relaxed);
        }
        is_head
    }

    /// Whether the TCP socket is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().socket.is_none()
    }

    /// Completes when the connection must end immediately; see [`Cut::cut`].
    pub async fn until_cut(&self) {
        self.cut.notified().await;
    }
}

impl Cut for Wire {
    fn cut(&self) {
        let state = self.state.lock();
        if let Some(socket) = state.socket {
            abandon(socket);
        }
        drop(state);
        self.cut.notify_one();
    }
}

/// Records the writes of a connection's stream in its [`Wire`]. Dropping it reads the state of the TCP socket for the
/// last time.
pub struct Writer {
    wire: Arc<Wire>,
    written: u64,
}

impl Writer {
    /// Creates the writer of a TCP socket. The caller must drop the writer before it closes the TCP socket.
    pub fn new(socket: &impl AsRawFd) -> Self {
        let state = State { socket: Some(socket.as_raw_fd()), acknowledged: 0, end: 0 };
        let wire = Wire {
            requests: Requests::default(),
            arrived: AtomicUsize::new(0),
            cut: Notify::new(),
            progress: AtomicU8::new(WRITTEN),
            state: Mutex::new(state),
        };
        Self { wire: Arc::new(wire), written: 0 }
    }

    /// The state of the connection, for other tasks.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Records that the stream has accepted `bytes` more bytes.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        if self.wire.progress.load(Ordering::Relaxed) == WAITING {
            self.wire.progress.store(WRITING, Ordering::Relaxed);
        }
    }

    /// If the peer has not acknowledged all bytes, lets the operating system discard them when the TCP socket is
    /// closed.
    pub fn abandon(&self) {
        if let Some(socket) = self.wire.state.lock().socket
            && acknowledged(socket) < self.written
        {
            abandon(socket);
        }
    }

    /// Records that all data of the connection is written.
    pub fn flushed(&self) {
        if self.wire.progress.load(Ordering::Relaxed) == WRITING {
            self.wire.state.lock().end = self.written;
            self.wire.progress.store(WRITTEN, Ordering::Release);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.wire.state.lock();
        let socket = state.socket.take();
        if let Some(socket) = socket.filter(|_| state.end > 0) {
            state.acknowledged = acknowledged(socket);
        }
    }
}

/// The answer to one request of a connection.
#[derive(Clone)]
pub struct Answer {
    wire: Arc<Wire>,
    number: u64,
}

/// The present state of a watched answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer has acknowledged the answer.
    Delivered,
    /// The peer may still acknowledge the answer.
    UnderWay,
    /// The connection ended before the peer acknowledged the complete answer.
    Lost,
}

/// The final state of a watched answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has acknowledged the answer.
    Delivered,
    /// The connection has ended without the acknowledgement, or 1 s ([`SETTLES_WITHIN`]) has passed.
    Lost,
    /// The node that proxied the answer cannot report its state.
    Unknown,
}

impl Answer {
    /// The connection of the answer.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Whether the operating system has accepted the complete watched answer, or the connection has ended.
    pub fn is_taken(&self) -> bool {
        self.wire.requests.begun() > self.number
            || self.wire.progress.load(Ordering::Acquire) == WRITTEN
            || self.wire.state.lock().socket.is_none()
    }

    /// Starts watching the answer. Call this before the answer is written.
    pub fn watch(&self) {
        self.wire.progress.store(WAITING, Ordering::Relaxed);
    }

    /// The present state of the watched answer.
    pub fn delivery(&self) -> Delivery {
        // A peer sends its next request after it has received the last answer.
        if self.wire.requests.begun() > self.number {
            return Delivery::Delivered;
        }
        let state = self.wire.state.lock();
        let acknowledged = state.socket.map_or(state.acknowledged, acknowledged);
        let is_written = self.wire.progress.load(Ordering::Acquire) == WRITTEN;
        match state.socket {
            _ if is_written && acknowledged >= state.end => Delivery::Delivered,
            Some(_) => Delivery::UnderWay,
            None => Delivery::Lost,
        }
    }

    /// The final state of the watched answer. Waits up to 1 s for late acknowledgements.
    pub async fn outcome(&self) -> Outcome {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            match self.delivery() {
                Delivery::Delivered => return Outcome::Delivered,
                Delivery::UnderWay if Instant::now() < until => sleep(CHECK_INTERVAL).await,
                Delivery::UnderWay | Delivery::Lost => return Outcome::Lost,
            }
        }
    }
}

/// Makes the close of a TCP socket reset the connection and free the bytes that the operating system has queued for it.
/// Without this, they stay in memory until the peer acknowledges them.
fn abandon(socket: RawFd) {
    let _ = uapi::setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger { l_onoff: 1, l_linger: 0 });
}

/// The number of bytes that the peer has acknowledged; 0 when the operating system does not report it.
fn acknowledged(socket: RawFd) -> u64 {
    /// The offset of `tcpi_bytes_acked` in `struct tcp_info` of Linux.
    const BYTES_ACKED: usize = 120;
    let mut info = [0_u8; BYTES_ACKED + size_of::<u64>()];
    match uapi::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &mut info) {
        Ok(length) if length == info.len() => info.last_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes)),
        _ => 0,
    }
}

//! Tracks what the peer of a connection has acknowledged. A balancer repeats a GET only when it has not seen the
//! answer, and everything it has seen its TCP has acknowledged.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uapi::c::{IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_INFO, linger};

use super::course::Course;
use crate::budget::Cut;

/// TCP may delay an acknowledgement by half a second (RFC 1122, 4.2.3.2), plus the time in transit.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// How often an answer in progress is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The sending side of a connection, where answers are watched.
pub struct Wire {
    /// How far its requests have come.
    pub course: Course,
    /// Bytes that have arrived since the last request began, while it had no body.
    arrived: AtomicUsize,
    /// The connection must end at once.
    cut: Notify,
    progress: AtomicU8,
    // Held while reading the socket's state, never across an await.
    state: Mutex<State>,
}

/// The watched answer is not written yet.
const WAITING: u8 = 1;
/// Some of it is written.
const WRITING: u8 = 2;
/// The whole answer is written, or none is watched.
const WRITTEN: u8 = 0;

struct State {
    /// The socket, until it is closed.
    socket: Option<RawFd>,
    /// Bytes that were acknowledged when the socket was closed.
    acknowledged: u64,
    /// Bytes written up to the end of the watched answer; 0: none has been watched.
    end: u64,
}

impl Wire {
    /// The answer to the request that has just arrived over the connection, and the bytes of its head; they may include the
    /// beginning of its body.
    pub fn next_answer(self: &Arc<Self>, has_body: bool) -> (Answer, usize) {
        let answer = Answer { number: self.course.begin(has_body), wire: self.clone() };
        (answer, self.arrived.swap(0, Ordering::Relaxed))
    }

    /// Records bytes that have arrived; `false` when they belong to a body, which its reader counts.
    pub fn arrived(&self, bytes: usize) -> bool {
        let is_head = !self.course.has_body();
        if is_head {
            self.arrived.fetch_add(bytes, Ordering::Relaxed);
        }
        is_head
    }

    /// Whether the socket is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().socket.is_none()
    }

    /// Completes when the connection must end at once.
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

/// Reports what a connection's stream does. When it is dropped, the socket's state is read for the last time.
pub struct Writer {
    wire: Arc<Wire>,
    written: u64,
}

impl Writer {
    /// For a socket that is closed only after this is dropped.
    pub fn new(socket: &impl AsRawFd) -> Self {
        let state = State { socket: Some(socket.as_raw_fd()), acknowledged: 0, end: 0 };
        let wire = Wire {
            course: Course::default(),
            arrived: AtomicUsize::new(0),
            cut: Notify::new(),
            progress: AtomicU8::new(WRITTEN),
            state: Mutex::new(state),
        };
        Self { wire: Arc::new(wire), written: 0 }
    }

    /// The state that others can read.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Records that `bytes` more were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        if self.wire.progress.load(Ordering::Relaxed) == WAITING {
            self.wire.progress.store(WRITING, Ordering::Relaxed);
        }
    }

    /// When the peer has not acknowledged everything, lets the system free it with the socket.
    pub fn abandon(&self) {
        if let Some(socket) = self.wire.state.lock().socket
            && acknowledged(socket) < self.written
        {
            abandon(socket);
        }
    }

    /// Records that everything was written.
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

/// The answer to one request.
#[derive(Clone)]
pub struct Answer {
    wire: Arc<Wire>,
    number: u64,
}

/// What has become of an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The peer has it.
    Delivered,
    /// The peer may still get it.
    UnderWay,
    /// The connection ended before the peer had acknowledged all of it.
    Lost,
}

/// What finally became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has arrived.
    Delivered,
    /// It has not arrived and will not.
    Lost,
    /// Impossible to find out.
    Unknown,
}

impl Answer {
    /// The connection.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Whether the system has taken the whole watched answer, or will take no more of it.
    pub fn is_taken(&self) -> bool {
        self.wire.course.begun() > self.number
            || self.wire.progress.load(Ordering::Acquire) == WRITTEN
            || self.wire.state.lock().socket.is_none()
    }

    /// Starts watching the answer; must be called before it is written.
    pub fn watch(&self) {
        self.wire.progress.store(WAITING, Ordering::Relaxed);
    }

    /// What has become of the watched answer so far.
    pub fn delivery(&self) -> Delivery {
        // A peer sends its next request once it has the last answer.
        if self.wire.course.begun() > self.number {
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

    /// Whether the peer receives the answer; waits for late acknowledgements.
    pub async fn fate(&self) -> Fate {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            match self.delivery() {
                Delivery::Delivered => return Fate::Delivered,
                Delivery::UnderWay if Instant::now() < until => sleep(LOOK_AGAIN).await,
                Delivery::UnderWay | Delivery::Lost => return Fate::Lost,
            }
        }
    }
}

/// Closing the socket resets the connection and frees what the system has queued for it, which would else stay until the
/// peer has taken it.
fn abandon(socket: RawFd) {
    let _ = uapi::setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger { l_onoff: 1, l_linger: 0 });
}

/// How many bytes the peer has acknowledged; 0 when the system does not report it.
fn acknowledged(socket: RawFd) -> u64 {
    /// Where `tcpi_bytes_acked` is in Linux' `struct tcp_info`.
    const BYTES_ACKED: usize = 120;
    let mut info = [0_u8; BYTES_ACKED + size_of::<u64>()];
    match uapi::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &mut info) {
        Ok(length) if length == info.len() => info.last_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes)),
        _ => 0,
    }
}

//! The progress of the requests of a connection. A client that half-closes the connection after a request still
//! receives the answer (RFC 9112 section 9.6), but hyper drops the request when it reads the end of the stream. The
//! server therefore reports the end to hyper only when no request is in progress, or when the request in progress needs
//! more from the client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;

/// The progress of the requests of one connection. The server handles them one after another.
#[derive(Default)]
pub struct Requests {
    /// The number of requests that have arrived.
    begun: AtomicU64,
    /// The number of requests whose answer is complete.
    made: AtomicU64,
    /// The number of requests whose answer is written.
    written: AtomicU64,
    has_body: AtomicBool,
    /// The client has closed its sending side.
    half_closed: AtomicBool,
    /// The request in progress waits for more of its body although the client has closed its sending side.
    starves: AtomicBool,
    /// The request in progress ends when the client closes its sending side.
    ends_with_client: AtomicBool,
    reader: AtomicWaker,
    body: AtomicWaker,
}

impl Requests {
    /// The number of requests that have arrived.
    pub fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Starts the next request; returns its number, from 1.
    pub fn begin(&self, has_body: bool) -> u64 {
        self.has_body.store(has_body, Relaxed);
        self.starves.store(false, Relaxed);
        self.ends_with_client.store(false, Relaxed);
        self.begun.fetch_add(1, Relaxed) + 1
    }

    /// Whether arriving bytes may belong to the body of the last request. hyper reads the rest of a body even after an
    /// early answer.
    pub fn has_body(&self) -> bool {
        self.has_body.load(Relaxed)
    }

    /// Records that the body of the last request has arrived completely.
    pub fn body_has_ended(&self) {
        self.has_body.store(false, Relaxed);
    }

    /// Whether a request is in progress or its answer is not written completely.
    pub fn is_busy(&self) -> bool {
        self.begun() > self.written.load(Relaxed)
    }

    /// Records that hyper has received the complete answer to the request in progress.
    pub fn made(&self) {
        self.made.store(self.begun(), Relaxed);
    }

    /// Records that hyper has written all its data. Returns whether this completes an answer.
    pub fn flushed(&self) -> bool {
        let made = self.made.load(Relaxed);
        let is_written = made > self.written.swap(made, Relaxed);
        if is_written && self.is_half_closed() {
            self.reader.wake();
        }
        is_written
    }

    /// Whether the client has closed its sending side.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    /// Records that the client has closed its sending side.
    pub fn half_close(&self) {
        self.half_closed.store(true, Relaxed);
    }

    /// Lets the request in progress end when the client closes its sending side, as a poll must.
    pub fn end_with_client(&self) {
        self.ends_with_client.store(true, Relaxed);
        if self.is_half_closed() {
            self.reader.wake();
        }
    }

    /// Ready when the end of the client's stream may end the connection.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        self.reader.register(context.waker());
        if !self.is_busy() || self.starves.load(Relaxed) || self.ends_with_client.load(Relaxed) {
            return Poll::Ready(());
        }
        // The reader of the body can read all received bytes. If it still needs more, it calls `body_is_awaited`.
        self.body.wake();
        Poll::Pending
    }

    /// Records that the reader of the body waits for more bytes.
    pub fn body_is_awaited(&self, waker: &Waker) {
        self.body.register(waker);
        if self.is_half_closed() {
            self.starves.store(true, Relaxed);
            self.reader.wake();
        }
    }
}

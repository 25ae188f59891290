//! How far the requests of a connection have come. A client that half-closes after a request still gets its answer
//! (RFC 9112, section 9.6), so the end of what a client sends is kept from hyper, which would drop the request, until
//! nothing is in progress, or what is in progress cannot go on without the client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;

/// The requests of one connection, which are handled one after the other.
#[derive(Default)]
pub struct Course {
    /// Requests that have arrived.
    begun: AtomicU64,
    /// Those whose answer is complete.
    made: AtomicU64,
    /// Those whose answer is written.
    written: AtomicU64,
    has_body: AtomicBool,
    /// The client sends nothing more.
    half_closed: AtomicBool,
    /// The request in progress waits for more of its body, after all that the client has sent.
    starves: AtomicBool,
    /// The request in progress is of no use without its client.
    ends_with_client: AtomicBool,
    reader: AtomicWaker,
    body: AtomicWaker,
}

impl Course {
    /// How many requests have arrived.
    pub fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Begins the next request; returns its number, from 1 on.
    pub fn begin(&self, has_body: bool) -> u64 {
        self.has_body.store(has_body, Relaxed);
        self.starves.store(false, Relaxed);
        self.ends_with_client.store(false, Relaxed);
        self.begun.fetch_add(1, Relaxed) + 1
    }

    /// Whether what arrives may be the body of the last request, which hyper reads on when it was answered early.
    pub fn has_body(&self) -> bool {
        self.has_body.load(Relaxed)
    }

    /// The body of the last request has arrived.
    pub fn body_has_ended(&self) {
        self.has_body.store(false, Relaxed);
    }

    /// Whether a request is being handled, or its answer written.
    pub fn is_busy(&self) -> bool {
        self.begun() > self.written.load(Relaxed)
    }

    /// The answer to the request in progress has been handed to hyper to its end.
    pub fn made(&self) {
        self.made.store(self.begun(), Relaxed);
    }

    /// Everything handed to hyper is written; whether an answer thereby is.
    pub fn flushed(&self) -> bool {
        let made = self.made.load(Relaxed);
        let is_written = made > self.written.swap(made, Relaxed);
        if is_written && self.is_half_closed() {
            self.reader.wake();
        }
        is_written
    }

    /// Whether the client sends nothing more.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    /// Records that the client sends nothing more.
    pub fn half_close(&self) {
        self.half_closed.store(true, Relaxed);
    }

    /// From here on, a client that half-closes gives up the request in progress.
    pub fn end_with_client(&self) {
        self.ends_with_client.store(true, Relaxed);
        if self.is_half_closed() {
            self.reader.wake();
        }
    }

    /// Ready when the end of what the client has sent is the end of the connection.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        self.reader.register(context.waker());
        if !self.is_busy() || self.starves.load(Relaxed) || self.ends_with_client.load(Relaxed) {
            return Poll::Ready(());
        }
        // All that has arrived is there for the reader of the body: if it still finds nothing, it starves.
        self.body.wake();
        Poll::Pending
    }

    /// The reader of the body waits for more of it.
    pub fn body_is_awaited(&self, waker: &Waker) {
        self.body.register(waker);
        if self.is_half_closed() {
            self.starves.store(true, Relaxed);
            self.reader.wake();
        }
    }
}

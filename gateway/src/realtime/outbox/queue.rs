//! The queue of one outbox and the bounds that hold for one client.

use std::collections::VecDeque;
use std::sync::Arc;

use confab_common::metrics::LIMITS;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::shared::{Share, Shared};
use super::{Close, MAX_ANSWERS, MAX_BYTES, MAX_UNKNOWN, ROOMY};
use crate::metrics::METRICS;
use crate::realtime::packet::Frame;

/// An empty queue keeps room for at most this many frames.
const KEPT_FRAMES: usize = 64;

#[derive(Default)]
pub(super) struct Queue {
    pub frames: VecDeque<Frame>,
    /// So many bytes of the first frame are written.
    pub written: usize,
    /// What the frames cost that are queued or being written.
    pub cost: Cost,
    /// What was taken last and is kept in case it is asked for again, in bytes.
    pub kept: usize,
    /// What the client has sent and the gateway still holds, in bytes.
    pub held: usize,
    /// So many of all these bytes are counted in `share` and among those of all outboxes.
    counted: usize,
    /// That of the client's user or, before it has connected, of its address.
    pub share: Arc<Share>,
    /// The client has not connected: everything together is bounded by [`MAX_UNKNOWN`].
    pub is_unknown: bool,
    /// The client has gone.
    pub is_over: bool,
    /// Where to write; none while the client polls.
    pub stream: Option<Arc<TcpStream>>,
    pub writer: Writer,
    pub close: Option<Close>,
    pub woken: bool,
    /// Something was taken since this was last asked.
    pub was_taken: bool,
}

/// What frames cost, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub all: usize,
    /// So much of it are answers.
    pub answers: usize,
}

impl Cost {
    pub fn add(&mut self, frame: &Frame) {
        self.all += frame.cost();
        if frame.is_answer() {
            self.answers += frame.cost();
        }
    }

    fn subtract(&mut self, gone: Self) {
        self.all -= gone.all;
        self.answers -= gone.answers;
    }

    fn unasked(self) -> usize {
        self.all - self.answers
    }
}

impl<'a> FromIterator<&'a Frame> for Cost {
    fn from_iter<I: IntoIterator<Item = &'a Frame>>(frames: I) -> Self {
        let mut cost = Self::default();
        frames.into_iter().for_each(|frame| cost.add(frame));
        cost
    }
}

/// Who sees to it that what is queued is written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Writer {
    /// Whoever queues the next frame has to find somebody.
    #[default]
    Nobody,
    /// A flush has been promised.
    Promised,
    /// A flush is under way; at its end it looks whether more has come.
    Flushing,
    /// The client's task, as soon as the stream takes more.
    Blocked,
}

impl Queue {
    /// Everything that is held for the client, in bytes. What is left of one that has gone is on its way out.
    pub fn total(&self) -> usize {
        if self.is_over { 0 } else { self.cost.all + self.kept + self.held }
    }

    /// Queues frames. When one exceeds the bound, the client is to be closed. `false` when it was closed before.
    pub fn admit(&mut self, frames: impl Iterator<Item = Frame>, shared: &Shared) -> bool {
        if self.close.is_some() {
            return false;
        }
        for frame in frames {
            if !self.fits(&frame) {
                self.overflow("overflow", shared);
                break;
            }
            self.add(frame);
        }
        self.count(shared);
        true
    }

    fn fits(&self, frame: &Frame) -> bool {
        if self.is_unknown {
            let fits = self.total() + frame.cost() <= MAX_UNKNOWN;
            if !fits {
                LIMITS.hit("before_connect");
            }
            return fits;
        }
        match frame.is_answer() {
            _ if self.cost.all == 0 => true,
            true => self.cost.answers + frame.cost() <= MAX_ANSWERS,
            false => self.cost.unasked() + frame.cost() <= MAX_BYTES,
        }
    }

    pub fn add(&mut self, frame: Frame) {
        self.cost.add(&frame);
        self.frames.push_back(frame);
    }

    /// Drops what waits and has the transport closed.
    pub fn overflow(&mut self, reason: &'static str, shared: &Shared) {
        METRICS.outbox_closes.hit(reason);
        self.close = Some(Close::Now);
        self.drop_frames();
        self.count(shared);
    }

    /// Drops what waits. What has begun must be finished: the client could not read on otherwise.
    pub fn drop_frames(&mut self) {
        let begun = usize::from(self.written > 0);
        let rest = self.frames.split_off(begun.min(self.frames.len()));
        self.cost.subtract(rest.iter().collect());
    }

    pub fn subtract(&mut self, gone: Cost, changed: &Notify, shared: &Shared) {
        let before = self.cost.all;
        self.cost.subtract(gone);
        self.count(shared);
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            self.frames.shrink_to(KEPT_FRAMES);
        }
        // Nobody waits for room while there is some.
        if before > ROOMY && self.cost.all <= ROOMY {
            changed.notify_waiters();
        }
    }

    /// Brings what is counted up to date.
    pub fn count(&mut self, shared: &Shared) {
        self.counted = shared.count(&self.share, self.counted, self.total(), self.stream.is_some());
    }

    /// Counts what is held in another share from now on.
    pub fn count_in(&mut self, share: Arc<Share>, shared: &Shared) {
        shared.pass(self.counted, &self.share, &share);
        self.share = share;
    }

    /// Counts nothing any more.
    pub fn forget(&mut self, shared: &Shared) {
        self.counted = shared.count(&self.share, self.counted, 0, true);
    }
}

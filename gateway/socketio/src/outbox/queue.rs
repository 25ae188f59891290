//! The queue of one outbox, with the bounds for one client.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ending::Ending;
use crate::frame::Frame;
use confab_common::metrics::LIMITS;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::{Close, LOW, MAX_ANSWERS, MAX_BYTES, MAX_UNKNOWN};
use crate::budget::{Budget, Share};
use crate::metrics::METRICS;

/// An empty queue keeps capacity for at most this many frames.
const KEPT_FRAMES: usize = 64;

#[derive(Default)]
pub(super) struct Queue {
    pub frames: VecDeque<Frame>,
    /// This many bytes of the first frame are written.
    pub written: usize,
    /// The cost of the frames that are queued or being written.
    pub cost: Cost,
    /// Bytes of the last polling payload, kept for a repeated poll.
    pub kept: usize,
    /// Received bytes that the server still holds.
    pub held: usize,
    /// The number of these bytes that `share` and the total of all outboxes count.
    counted: usize,
    /// The share of the client's owner or, before its identification, of its address.
    pub share: Arc<Share>,
    /// The client is not identified: [`MAX_UNKNOWN`] bounds the sum of all its bytes.
    pub is_unknown: bool,
    /// The session has ended.
    pub is_over: bool,
    /// The stream to write to; `None` while the client polls.
    pub stream: Option<Arc<TcpStream>>,
    pub writer: Writer,
    pub close: Option<Close>,
    /// The cause if the queue itself requested `close`.
    pub cause: Option<Ending>,
    pub woken: bool,
    /// Frames were removed for a poll since the last check.
    pub was_taken: bool,
}

/// The cost of frames, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub all: usize,
    /// The part of `all` that answers cost.
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

/// Which task will write the queued frames.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Writer {
    /// No task; the task that queues the next frame must wake or promise one.
    #[default]
    Unassigned,
    /// The task that queued a frame has promised to flush.
    Promised,
    /// The task of the flush in progress, which checks for more frames at its end.
    Flushing,
    /// The client's task, as soon as the stream is writable.
    Blocked,
}

impl Queue {
    /// The number of bytes held for the client; 0 after the end of the session, because the rest is freed shortly.
    pub fn total(&self) -> usize {
        if self.is_over { 0 } else { self.cost.all + self.kept + self.held }
    }

    /// Queues frames. A frame that exceeds the bound closes the transport. `false` when it is closing already.
    pub fn admit(&mut self, frames: impl Iterator<Item = Frame>, budget: &Budget) -> bool {
        if self.close.is_some() {
            return false;
        }
        for frame in frames {
            if !self.fits(&frame) {
                self.overflow("overflow", budget);
                break;
            }
            self.add(frame);
        }
        self.count(budget);
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
        if self.cost.all == 0 {
            true
        } else if frame.is_answer() {
            self.cost.answers + frame.cost() <= MAX_ANSWERS
        } else {
            self.cost.unasked() + frame.cost() <= MAX_BYTES
        }
    }

    pub fn add(&mut self, frame: Frame) {
        self.cost.add(&frame);
        self.frames.push_back(frame);
    }

    /// Drops the queued frames and requests that the transport is closed.
    pub fn overflow(&mut self, reason: &'static str, budget: &Budget) {
        METRICS.outbox_closes.hit(reason);
        self.cause.get_or_insert(Ending::Overflow);
        self.close = Some(Close::Now);
        self.drop_frames();
        self.count(budget);
    }

    /// Drops the queued frames except a partly written one, which must be completed so that the client can parse what
    /// follows.
    pub fn drop_frames(&mut self) {
        let begun = usize::from(self.written > 0);
        let rest = self.frames.split_off(begun.min(self.frames.len()));
        self.cost.subtract(rest.iter().collect());
    }

    pub fn subtract(&mut self, gone: Cost, changed: &Notify, budget: &Budget) {
        let before = self.cost.all;
        self.cost.subtract(gone);
        self.count(budget);
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            self.frames.shrink_to(KEPT_FRAMES);
        }
        // Tasks wait for space only above this mark.
        if before > LOW && self.cost.all <= LOW {
            changed.notify_waiters();
        }
    }

    /// Updates the counters of the share and of the total.
    pub fn count(&mut self, budget: &Budget) {
        self.counted = budget.count(&self.share, self.counted, self.total(), self.stream.is_some());
    }

    /// Moves the counted bytes to another share, which counts them from now on.
    pub fn count_in(&mut self, share: Arc<Share>, budget: &Budget) {
        budget.transfer(self.counted, &self.share, &share);
        self.share = share;
    }

    /// Stops counting all bytes.
    pub fn forget(&mut self, budget: &Budget) {
        self.counted = budget.count(&self.share, self.counted, 0, true);
    }
}

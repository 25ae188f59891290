//! What waits to be sent to one client, bounded in bytes. Any task puts frames in; the client's own task takes everything
//! that is queued and writes it at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::packet::Frame;

/// Most bytes that may wait for one client. One frame always fits an empty outbox.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How a client's transport is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// After everything queued has been sent.
    Flushed,
    /// At once.
    Now,
}

/// The queue of one client.
#[derive(Default)]
pub struct Outbox {
    // A std lock: held for a few pushes, never across an await.
    queue: Mutex<Queue>,
    task: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Queued or taken, and not sent yet.
    bytes: usize,
    close: Option<Close>,
    woken: bool,
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame.
    pub fn push(&self, frame: Frame) {
        self.push_all(std::slice::from_ref(&frame));
    }

    /// Queues frames for one write. A client that leaves too much unread is closed: it comes back and asks for what it
    /// missed, whereas a frame left out would never be noticed.
    pub fn push_all(&self, frames: &[Frame]) {
        let mut queue = self.queue();
        for frame in frames {
            if queue.close.is_some() {
                return;
            }
            let length = frame.websocket().len();
            if queue.bytes > 0 && queue.bytes + length > MAX_BYTES {
                metrics::counter!("confab_outbox_closes_total", "reason" => "overflow").increment(1);
                queue.close = Some(Close::Now);
                break;
            }
            queue.bytes += length;
            queue.frames.push_back(frame.clone());
        }
        self.wake(queue);
    }

    /// Has the transport closed; the stricter of two demands holds.
    pub fn close(&self, close: Close) {
        let mut queue = self.queue();
        queue.close = queue.close.max(Some(close));
        self.wake(queue);
    }

    /// Has the client's task look around, although nothing was queued.
    pub fn nudge(&self) {
        self.wake(self.queue());
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        // Once is enough until the task has looked.
        let first = !std::mem::replace(&mut queue.woken, true);
        drop(queue);
        if first {
            self.task.wake();
        }
    }

    /// Whether the transport is to be closed.
    pub fn closing(&self) -> Option<Close> {
        self.queue().close
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue().frames.is_empty()
    }

    /// Takes everything queued, reporting how many bytes taken earlier have been sent since.
    pub fn take(&self, into: &mut VecDeque<Frame>, sent: usize) -> Option<Close> {
        let mut queue = self.queue();
        queue.woken = false;
        queue.bytes -= sent;
        if into.is_empty() {
            std::mem::swap(into, &mut queue.frames);
        } else {
            into.append(&mut queue.frames);
        }
        queue.close
    }

    /// Takes frames for one long-polling payload: at most `packets`, and at most `bytes` unless the first alone is larger.
    /// They count as sent.
    pub fn take_some(&self, packets: usize, bytes: usize) -> Vec<Frame> {
        let mut queue = self.queue();
        let mut taken = Vec::new();
        let mut total = 0;
        while taken.len() < packets
            && let Some(frame) = queue.frames.front()
        {
            total += frame.packet().len() + 1;
            if !taken.is_empty() && total > bytes {
                break;
            }
            taken.extend(queue.frames.pop_front());
        }
        queue.bytes -= taken.iter().map(|frame| frame.websocket().len()).sum::<usize>();
        queue.woken = !queue.frames.is_empty();
        taken
    }

    /// Ready when something was queued or demanded since the last [`take`](Self::take).
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        match self.queue().woken {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_everything_in_order_and_counts_what_is_unsent() {
        let outbox = Outbox::default();
        outbox.push_all(&[Frame::engine("a"), Frame::engine("b")]);
        let mut taken = VecDeque::new();
        assert_eq!(outbox.take(&mut taken, 0), None);
        outbox.push(Frame::engine("c"));
        outbox.take(&mut taken, 3);
        assert_eq!(taken.iter().map(Frame::packet).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(outbox.queue().bytes, 6);
    }

    #[test]
    fn a_reader_that_is_too_slow_is_closed_and_one_frame_always_fits() {
        let outbox = Outbox::default();
        outbox.push(Frame::engine(&"x".repeat(MAX_BYTES * 2)));
        assert_eq!(outbox.closing(), None);
        outbox.push(Frame::engine("y"));
        assert_eq!(outbox.closing(), Some(Close::Now));
        outbox.close(Close::Flushed);
        assert_eq!(outbox.closing(), Some(Close::Now));
    }

    #[test]
    fn a_polling_payload_is_bounded() {
        let outbox = Outbox::default();
        (0..40).for_each(|n| outbox.push(Frame::engine(&format!("{n:02}"))));
        assert_eq!(outbox.take_some(16, 1000).len(), 16);
        assert_eq!(outbox.take_some(16, 7).len(), 2);
        outbox.take_some(100, 1000);
        assert_eq!(outbox.queue().bytes, 0);
        outbox.push(Frame::engine("large"));
        assert_eq!(outbox.take_some(16, 2).len(), 1);
    }
}

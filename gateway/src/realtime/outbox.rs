//! What waits to be sent to one client, bounded in bytes. Any task puts frames in; the client's own task takes everything
//! that is queued and writes it at once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::packet::Frame;

/// Most bytes that may wait for one client. One frame always fits an empty outbox.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Below this more answers are prepared for the client.
const ROOMY: usize = 256 * 1024;

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
    roomy: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// What the frames cost that are queued, or taken and not sent yet.
    bytes: usize,
    /// By how much the bound is raised by answers that wait: the client asked for them, and their number is bounded where
    /// they are made.
    owed: usize,
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
            if queue.bytes > 0 && queue.bytes + frame.cost() > MAX_BYTES + queue.owed {
                metrics::counter!("confab_outbox_closes_total", "reason" => "overflow").increment(1);
                queue.close = Some(Close::Now);
                break;
            }
            queue.add(frame);
        }
        self.wake(queue);
    }

    /// Queues what answers the client's own request, whatever waits already.
    pub fn answer(&self, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue();
        if queue.close.is_none() {
            for frame in frames {
                queue.owed += frame.cost();
                queue.add(frame);
            }
            self.wake(queue);
        }
    }

    /// Queues the last words to a client in place of everything that waits, and has the transport closed after them.
    pub fn end(&self, last: &[Frame]) {
        let mut queue = self.queue();
        if queue.close.is_none() {
            let dropped = queue.frames.drain(..).map(|frame| frame.cost()).sum::<usize>();
            queue.bytes -= dropped;
            last.iter().for_each(|frame| queue.add(frame));
            queue.close = Some(Close::Flushed);
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
        if queue.close.is_some() {
            // Nobody is to wait for room that will never come.
            self.roomy.notify_waiters();
        }
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

    /// Completes when little waits for the client, or its transport is to be closed.
    pub async fn roomy(&self) {
        loop {
            let roomy = self.roomy.notified();
            {
                let queue = self.queue();
                if queue.bytes <= ROOMY || queue.close.is_some() {
                    return;
                }
            }
            roomy.await;
        }
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue().frames.is_empty()
    }

    /// Takes everything queued, to be reported as [`sent`](Self::sent).
    pub fn take(&self, into: &mut VecDeque<Frame>) -> Option<Close> {
        let mut queue = self.queue();
        queue.woken = false;
        if into.is_empty() {
            std::mem::swap(into, &mut queue.frames);
        } else {
            into.append(&mut queue.frames);
        }
        queue.close
    }

    /// Notes that frames taken earlier, of so much cost in all, have been sent.
    pub fn sent(&self, cost: usize) {
        if cost > 0 {
            self.queue().subtract(cost, &self.roomy);
        }
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
        queue.woken = !queue.frames.is_empty();
        queue.subtract(taken.iter().map(Frame::cost).sum(), &self.roomy);
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

impl Queue {
    fn add(&mut self, frame: &Frame) {
        self.bytes += frame.cost();
        self.frames.push_back(frame.clone());
    }

    fn subtract(&mut self, cost: usize, roomy: &Notify) {
        self.bytes -= cost;
        if self.bytes <= ROOMY {
            self.owed = 0;
            roomy.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_everything_in_order_and_counts_what_is_unsent() {
        let outbox = Outbox::default();
        let frames = ["a", "b", "c"].map(Frame::engine);
        outbox.push_all(&frames[..2]);
        let mut taken = VecDeque::new();
        assert_eq!(outbox.take(&mut taken), None);
        outbox.sent(frames[0].cost());
        outbox.push(frames[2].clone());
        outbox.take(&mut taken);
        assert_eq!(taken.iter().map(Frame::packet).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(outbox.queue().bytes, frames[1].cost() + frames[2].cost());
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
    fn small_frames_cost_what_they_take_in_memory() {
        let outbox = Outbox::default();
        let ping = Frame::engine("2");
        (0..MAX_BYTES / 100).for_each(|_| outbox.push(ping.clone()));
        assert_eq!(outbox.closing(), Some(Close::Now));
    }

    #[tokio::test]
    async fn answers_never_close_and_are_paced() {
        let outbox = Outbox::default();
        let large = Frame::engine(&"x".repeat(MAX_BYTES * 2));
        outbox.answer(&[large.clone(), large.clone()]);
        outbox.push(Frame::engine("live"));
        assert_eq!(outbox.closing(), None);
        let mut taken = VecDeque::new();
        outbox.take(&mut taken);
        let mut roomy = std::pin::pin!(outbox.roomy());
        assert!(futures::poll!(&mut roomy).is_pending());
        outbox.sent(2 * large.cost());
        roomy.await;
        assert_eq!(outbox.queue().owed, 0);
    }

    #[test]
    fn the_end_takes_the_place_of_what_waits() {
        let outbox = Outbox::default();
        outbox.push(Frame::engine("never read"));
        outbox.end(&[Frame::engine("ended")]);
        outbox.push(Frame::engine("too late"));
        let mut taken = VecDeque::new();
        assert_eq!(outbox.take(&mut taken), Some(Close::Flushed));
        assert_eq!(taken.iter().map(Frame::packet).collect::<Vec<_>>(), [b"ended"]);
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

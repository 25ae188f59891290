//! What waits to be sent to one client, bounded in bytes. Any task puts frames in; whoever flushes takes everything that is
//! queued and writes it at once: after a fan-out a task that does so for many clients in a row, otherwise the client's own.

mod flush;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::packet::Frame;

pub use flush::Flushed;

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
    /// So many bytes of the first frame are written.
    written: usize,
    /// What the frames cost that are queued or being written.
    bytes: usize,
    /// Where to write; none while the client polls.
    stream: Option<Arc<TcpStream>>,
    writer: Writer,
    /// By how much the bound is raised by answers that wait: the client asked for them, and their number is bounded where
    /// they are made.
    owed: usize,
    close: Option<Close>,
    woken: bool,
}

/// Who sees to it that what is queued is written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
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
        if queue.admit(frames) {
            self.wake(queue);
        }
    }

    /// The same, but the caller promises to [`flush`](Self::flush) soon when it is answered `true`, so that the client's
    /// task can sleep on.
    pub fn push_to_flush(&self, frames: &[Frame]) -> bool {
        let mut queue = self.queue();
        if !queue.admit(frames) {
            return false;
        }
        let promised = queue.writer == Writer::Nobody && queue.stream.is_some() && queue.close.is_none() && !queue.woken;
        if promised {
            queue.writer = Writer::Promised;
        } else {
            self.wake(queue);
        }
        promised
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
            // What has begun must be finished: the client could not read on otherwise.
            let begun = usize::from(queue.written > 0);
            let dropped = queue.frames.drain(begun..).map(|frame| frame.cost()).sum::<usize>();
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
        self.wake_task(self.queue());
    }

    /// Has what was queued written, or the transport closed.
    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        if queue.close.is_some() {
            // Nobody is to wait for room that will never come.
            self.roomy.notify_waiters();
        }
        if queue.writer == Writer::Nobody || queue.close.is_some() {
            self.wake_task(queue);
        }
    }

    fn wake_task(&self, mut queue: MutexGuard<'_, Queue>) {
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

    /// Notes that the client's task looks around now; whether the transport is to be closed.
    pub fn look(&self) -> Option<Close> {
        let mut queue = self.queue();
        queue.woken = false;
        queue.close
    }

    /// Gives back what a burst needed.
    pub fn shrink(&self) {
        self.queue().frames.shrink_to(4);
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

    /// Ready when the client's task has to look around since it last did.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        match self.queue().woken {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Queue {
    /// Queues frames as far as the bound allows; `false` when it was closed before.
    fn admit(&mut self, frames: &[Frame]) -> bool {
        if self.close.is_some() {
            return false;
        }
        for frame in frames {
            if self.bytes > 0 && self.bytes + frame.cost() > MAX_BYTES + self.owed {
                metrics::counter!("confab_outbox_closes_total", "reason" => "overflow").increment(1);
                self.close = Some(Close::Now);
                break;
            }
            self.add(frame);
        }
        true
    }

    fn add(&mut self, frame: &Frame) {
        self.bytes += frame.cost();
        self.frames.push_back(frame.clone());
    }

    fn subtract(&mut self, cost: usize, roomy: &Notify) {
        let before = self.bytes;
        self.bytes -= cost;
        if self.bytes <= ROOMY {
            self.owed = 0;
            // Nobody waits for room while there is some.
            if before > ROOMY {
                roomy.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut roomy = std::pin::pin!(outbox.roomy());
        assert!(futures::poll!(&mut roomy).is_pending());
        assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
        roomy.await;
        assert_eq!(outbox.queue().owed, 0);
    }

    #[test]
    fn the_end_takes_the_place_of_what_waits() {
        let outbox = Outbox::default();
        outbox.push(Frame::engine("never read"));
        outbox.end(&[Frame::engine("ended")]);
        outbox.push(Frame::engine("too late"));
        assert_eq!(outbox.look(), Some(Close::Flushed));
        assert_eq!(outbox.take_some(9, 999).iter().map(Frame::packet).collect::<Vec<_>>(), [b"ended"]);
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

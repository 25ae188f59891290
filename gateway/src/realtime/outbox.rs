//! What waits to be sent to one client, bounded in bytes. Any task puts frames in; whoever flushes takes everything that is
//! queued and writes it at once: after a fan-out a task that does so for many clients in a row, otherwise the client's own.

mod flush;
mod shared;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::packet::Frame;
use crate::metrics::METRICS;

pub use flush::Flushed;
pub use shared::Shared;

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
pub struct Outbox {
    // A std lock: held for a few pushes, never across an await.
    queue: Mutex<Queue>,
    task: AtomicWaker,
    roomy: Notify,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// So many bytes of the first frame are written.
    written: usize,
    /// What the frames cost that are queued or being written.
    cost: Cost,
    /// What was taken last and is kept in case it is asked for again, in bytes.
    kept: usize,
    /// So many of all these bytes are counted among those of all outboxes.
    counted: usize,
    /// Where to write; none while the client polls.
    stream: Option<Arc<TcpStream>>,
    writer: Writer,
    close: Option<Close>,
    woken: bool,
}

/// What frames cost, in bytes.
#[derive(Clone, Copy, Default)]
struct Cost {
    all: usize,
    /// So much of it are answers. They trip no bound: the client asked for them, and no more are made while much waits.
    answers: usize,
}

impl Cost {
    fn add(&mut self, frame: &Frame) {
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
    /// An empty outbox among others.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { queue: Mutex::default(), task: AtomicWaker::new(), roomy: Notify::new(), shared }
    }

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
        if queue.admit(frames, &self.shared) {
            self.wake(queue);
        }
    }

    /// The same, but the caller promises to [`flush`](Self::flush) soon when it is answered `true`, so that the client's
    /// task can sleep on.
    pub fn push_to_flush(&self, frames: &[Frame]) -> bool {
        let mut queue = self.queue();
        if !queue.admit(frames, &self.shared) {
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

    /// Queues what answers the client's own request, whatever waits already: whoever makes it waits for
    /// [`roomy`](Self::roomy) before.
    pub fn answer(&self, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue();
        if queue.close.is_none() {
            frames.iter().for_each(|frame| queue.add(frame.as_answer()));
            queue.count(&self.shared);
            self.wake(queue);
        }
    }

    /// Queues the last words to a client in place of everything that waits, and has the transport closed after them.
    pub fn end(&self, last: &[Frame]) {
        let mut queue = self.queue();
        if queue.close.is_none() {
            queue.drop_frames();
            last.iter().for_each(|frame| queue.add(frame.clone()));
            queue.close = Some(Close::Flushed);
            queue.count(&self.shared);
        }
        self.wake(queue);
    }

    /// Has the transport closed; the stricter of two demands holds.
    pub fn close(&self, close: Close) {
        let mut queue = self.queue();
        queue.close = queue.close.max(Some(close));
        self.wake(queue);
    }

    /// How much waits or is kept that the client has not asked for itself.
    pub fn unasked(&self) -> usize {
        let queue = self.queue();
        queue.cost.unasked() + queue.kept
    }

    /// Counts what was taken and is kept elsewhere, in bytes, in place of what was kept before.
    pub fn keep(&self, bytes: usize) {
        let mut queue = self.queue();
        queue.kept = bytes;
        queue.count(&self.shared);
    }

    /// Drops what waits and has the transport closed, because all outboxes together hold too much.
    pub fn give_up(&self) {
        let mut queue = self.queue();
        queue.overflow("total", &self.shared);
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
            if self.is_roomy() {
                return;
            }
            roomy.await;
        }
    }

    /// Whether [`roomy`](Self::roomy) would not wait.
    pub fn is_roomy(&self) -> bool {
        let queue = self.queue();
        queue.cost.all <= ROOMY || queue.close.is_some()
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
        if self.shared.is_paused() {
            // When it is over, everybody is told.
            queue.woken = false;
            return taken;
        }
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
        queue.subtract(taken.iter().collect(), &self.roomy, &self.shared);
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

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.count(self.queue().counted, 0);
    }
}

impl Queue {
    /// Queues frames as far as the bound allows; `false` when it was closed before.
    fn admit(&mut self, frames: &[Frame], shared: &Shared) -> bool {
        if self.close.is_some() {
            return false;
        }
        for frame in frames {
            if self.cost.all > 0 && self.cost.unasked() + frame.cost() > MAX_BYTES {
                self.overflow("overflow", shared);
                break;
            }
            self.add(frame.clone());
        }
        self.count(shared);
        true
    }

    fn add(&mut self, frame: Frame) {
        self.cost.add(&frame);
        self.frames.push_back(frame);
    }

    fn overflow(&mut self, reason: &'static str, shared: &Shared) {
        METRICS.outbox_closes.hit(reason);
        self.close = Some(Close::Now);
        self.drop_frames();
        self.count(shared);
    }

    /// Drops what waits. What has begun must be finished: the client could not read on otherwise.
    fn drop_frames(&mut self) {
        let begun = usize::from(self.written > 0);
        let rest = self.frames.split_off(begun.min(self.frames.len()));
        self.cost.subtract(rest.iter().collect());
    }

    fn subtract(&mut self, gone: Cost, roomy: &Notify, shared: &Shared) {
        let before = self.cost.all;
        self.cost.subtract(gone);
        self.count(shared);
        // Nobody waits for room while there is some.
        if before > ROOMY && self.cost.all <= ROOMY {
            roomy.notify_waiters();
        }
    }

    fn count(&mut self, shared: &Shared) {
        self.counted = shared.count(self.counted, self.cost.all + self.kept);
    }
}

#[cfg(test)]
mod tests;

//! What waits to be sent to one client, bounded in bytes. Any task can queue frames; a flush writes everything queued
//! at once. After a fan-out one task flushes many clients in a row, otherwise the client's own task does it.

mod flush;
mod queue;

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::ending::Ending;
use crate::frame::Frame;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::budget::{Budget, Share};
use queue::{Queue, Writer};

pub use flush::Flushed;

/// Most bytes that may wait for one client besides answers. One frame always fits an empty outbox.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Most bytes of answers that may wait for one client.
pub const MAX_ANSWERS: usize = 2 * 1024 * 1024;
/// Most bytes that the gateway holds for a client that has not connected, in both directions.
pub const MAX_UNKNOWN: usize = 16 * 1024;
/// Below this many waiting bytes, more answers are prepared for the client.
const LOW: usize = 256 * 1024;

/// How a client's transport must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// After everything queued has been sent.
    Flushed,
    /// At once.
    Now,
}

/// The queue of one client.
pub struct Outbox {
    // Held for a few pushes, never across an await.
    queue: Mutex<Queue>,
    task: AtomicWaker,
    /// There is room, the transport must be closed, or a GET has ended.
    changed: Notify,
    budget: Arc<Budget>,
}

impl Outbox {
    /// An empty outbox; `budget` counts all outboxes.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), task: AtomicWaker::new(), changed: Notify::new(), budget }
    }

    /// The outbox of a client that has not connected yet.
    pub fn of_unknown(budget: Arc<Budget>) -> Self {
        let outbox = Self::new(budget);
        outbox.queue.lock().is_unknown = true;
        outbox
    }

    /// Counts what is held for the client in `share` from now on.
    pub fn count_in(&self, share: Arc<Share>) {
        self.queue.lock().count_in(share, &self.budget);
    }

    /// The client has been identified: the bounds for identified clients apply from now on.
    pub fn set_known(&self) {
        self.queue.lock().is_unknown = false;
    }

    /// The share in which what is held for the client is counted.
    pub fn share(&self) -> Arc<Share> {
        self.queue.lock().share.clone()
    }

    /// How many more bytes a client that has not connected may make the gateway hold; `None` once it has connected.
    pub fn left_to_unknown(&self) -> Option<usize> {
        let queue = self.queue.lock();
        queue.is_unknown.then(|| MAX_UNKNOWN.saturating_sub(queue.total()))
    }

    /// Counts bytes that the client has sent until they are [`release`](Self::release)d.
    pub fn hold(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.held += bytes;
        queue.count(&self.budget);
    }

    /// Stops counting bytes that the client has sent.
    pub fn release(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.held -= bytes;
        queue.count(&self.budget);
    }

    /// Queues a frame.
    pub fn push(&self, frame: Frame) {
        self.push_all(std::slice::from_ref(&frame));
    }

    /// Queues frames for one write. A client that leaves too much unread is closed: it reconnects and asks for what it
    /// missed, whereas it would never notice a missing frame.
    pub fn push_all(&self, frames: &[Frame]) {
        let mut queue = self.queue.lock();
        if queue.admit(frames.iter().cloned(), &self.budget) {
            self.wake(queue);
        }
    }

    /// Queues frames; when this returns `true`, the caller must [`flush`](Self::flush) soon. That saves waking the
    /// client's task.
    pub fn push_to_flush(&self, frames: &[Frame]) -> bool {
        let mut queue = self.queue.lock();
        if !queue.admit(frames.iter().cloned(), &self.budget) {
            return false;
        }
        let promised =
            queue.writer == Writer::Unassigned && queue.stream.is_some() && queue.close.is_none() && !queue.woken;
        if promised {
            queue.writer = Writer::Promised;
        } else {
            self.wake(queue);
        }
        promised
    }

    /// Queues the answer to a request of the client. Answers have a bound of their own: few requests of a client are in
    /// progress at once, and none begins before [`space`](Self::space), so only a client that does not read exceeds it.
    pub fn answer(&self, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.admit(frames.iter().map(Frame::as_answer), &self.budget) {
            self.wake(queue);
        }
    }

    /// Replaces everything that waits with these last frames, and has the transport closed after them.
    pub fn disconnect(&self, last: &[Frame]) {
        let mut queue = self.queue.lock();
        if queue.close.is_none() {
            queue.drop_frames();
            last.iter().for_each(|frame| queue.add(frame.clone()));
            queue.close = Some(Close::Flushed);
            queue.count(&self.budget);
        }
        self.wake(queue);
    }

    /// Requests that the transport is closed; of two requests the stricter one holds.
    pub fn close(&self, close: Close) {
        let mut queue = self.queue.lock();
        queue.close = queue.close.max(Some(close));
        self.wake(queue);
    }

    /// Bytes held for the client.
    pub fn bytes(&self) -> usize {
        self.queue.lock().total()
    }

    /// Replaces the number of bytes that were taken but are kept for a repeat.
    pub fn keep(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.kept = bytes;
        queue.count(&self.budget);
    }

    /// Drops what waits and requests that the transport is closed; counts the reason.
    pub fn evict(&self, reason: &'static str) {
        let mut queue = self.queue.lock();
        queue.overflow(reason, &self.budget);
        self.wake(queue);
    }

    /// The client has disconnected: requests that the transport is closed, and counts nothing any more.
    pub fn release_all(&self) {
        let mut queue = self.queue.lock();
        queue.is_over = true;
        queue.count(&self.budget);
        queue.close = Some(Close::Now);
        self.wake(queue);
    }

    /// A GET has ended.
    pub fn got(&self) {
        self.changed.notify_waiters();
    }

    /// Completes after the next change: there is room, the transport must be closed, or a GET has ended.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Completes when the transport must be closed at once.
    pub async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.closing() == Some(Close::Now) {
                return;
            }
            changed.await;
        }
    }

    /// Wakes the client's task although nothing was queued.
    pub fn nudge(&self) {
        self.wake_task(self.queue.lock());
    }

    /// Makes sure that queued frames are written or the transport is closed.
    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        if queue.close.is_some() {
            // No task may wait for room that will never come.
            self.changed.notify_waiters();
        }
        if queue.writer == Writer::Unassigned || queue.close.is_some() {
            self.wake_task(queue);
        }
    }

    fn wake_task(&self, mut queue: MutexGuard<'_, Queue>) {
        // Waking the task once is enough until it has looked.
        let first = !std::mem::replace(&mut queue.woken, true);
        drop(queue);
        if first {
            self.task.wake();
        }
    }

    /// How the transport must be closed, if it must.
    pub fn closing(&self) -> Option<Close> {
        self.queue.lock().close
    }

    /// Why the transport must be closed, where the outbox itself decided it.
    pub(crate) fn cause(&self) -> Ending {
        self.queue.lock().cause.unwrap_or(Ending::ConnectionLost)
    }

    /// Completes when little waits for the client, or its transport must be closed.
    pub async fn space(&self) {
        loop {
            let changed = self.changed.notified();
            if self.has_space() {
                return;
            }
            changed.await;
        }
    }

    /// Completes when the client's holder holds no more than its share, or little is held in all outboxes together. The
    /// wait is counted under `what`.
    pub async fn within_share(&self, what: &'static str) {
        if !self.budget.is_ample() {
            let share = self.share();
            self.budget.space_for(&share, what).await;
        }
    }

    /// Whether [`space`](Self::space) completes at once.
    pub fn has_space(&self) -> bool {
        let queue = self.queue.lock();
        queue.cost.all <= LOW || queue.close.is_some()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().frames.is_empty()
    }

    /// Records that the client's task looks around now; returns how the transport must be closed, if it must.
    pub fn look(&self) -> Option<Close> {
        let mut queue = self.queue.lock();
        queue.woken = false;
        queue.close
    }

    /// Frees the budget of a burst.
    pub fn shrink(&self) {
        self.queue.lock().frames.shrink_to(4);
    }

    /// Takes frames for one long-polling payload: at most `packets`, and at most `bytes` unless the first alone is larger.
    /// They count as sent.
    pub fn take_some(&self, packets: usize, bytes: usize) -> Vec<Frame> {
        let mut queue = self.queue.lock();
        let mut taken = Vec::new();
        let mut total = 0;
        if self.budget.is_paused() {
            // The end of the session wakes every waiter.
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
        queue.was_taken |= !taken.is_empty();
        queue.subtract(taken.iter().collect(), &self.changed, &self.budget);
        taken
    }

    /// Whether frames were taken since the last call.
    pub fn was_taken(&self) -> bool {
        std::mem::take(&mut self.queue.lock().was_taken)
    }

    /// Ready when the client's task must look around.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        match self.queue.lock().woken {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.lock().forget(&self.budget);
    }
}

#[cfg(test)]
mod tests;

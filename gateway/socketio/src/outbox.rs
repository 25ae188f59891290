//! The queue of frames for one client, bounded in bytes. Any task can queue frames. A flush writes all queued frames
//! and combines small frames into one system call. After a fan-out, one task flushes the outboxes of many clients in
//! turn; otherwise the client's own task flushes.

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

/// Maximum number of bytes queued for one client in addition to answers: 1 MiB. An empty outbox accepts a frame of any
/// size.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Maximum number of bytes of answers queued for one client: 2 MiB.
pub const MAX_ANSWERS: usize = 2 * 1024 * 1024;
/// Maximum number of bytes held for an unidentified client, received and queued together: 16 KiB.
pub const MAX_UNKNOWN: usize = 16 * 1024;
/// At or below this number of queued bytes, the application prepares more answers for the client.
const LOW: usize = 256 * 1024;

/// When a client's transport must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// After all queued frames are sent.
    Flushed,
    /// Immediately.
    Now,
}

/// The queue of frames for one client. It also counts the received bytes that the server still holds for the client.
pub struct Outbox {
    // Held for a few pushes, never across an await.
    queue: Mutex<Queue>,
    task: AtomicWaker,
    /// Notified when there is space again, when the transport must be closed, and when a GET has ended.
    changed: Notify,
    budget: Arc<Budget>,
}

impl Outbox {
    /// Creates an empty outbox for an identified client; `budget` counts the bytes of all outboxes.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), task: AtomicWaker::new(), changed: Notify::new(), budget }
    }

    /// Creates an empty outbox for an unidentified client, bounded by [`MAX_UNKNOWN`].
    pub fn of_unknown(budget: Arc<Budget>) -> Self {
        let outbox = Self::new(budget);
        outbox.queue.lock().is_unknown = true;
        outbox
    }

    /// Moves the client's bytes to `share`, which counts them from now on.
    pub fn count_in(&self, share: Arc<Share>) {
        self.queue.lock().count_in(share, &self.budget);
    }

    /// Applies the bounds for identified clients from now on.
    pub fn set_known(&self) {
        self.queue.lock().is_unknown = false;
    }

    /// The share that counts the client's bytes.
    pub fn share(&self) -> Arc<Share> {
        self.queue.lock().share.clone()
    }

    /// The number of bytes left within [`MAX_UNKNOWN`]; `None` for an identified client.
    pub fn left_to_unknown(&self) -> Option<usize> {
        let queue = self.queue.lock();
        queue.is_unknown.then(|| MAX_UNKNOWN.saturating_sub(queue.total()))
    }

    /// Counts `bytes` received from the client until the caller calls [`release`](Self::release) for them.
    pub fn hold(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.held += bytes;
        queue.count(&self.budget);
    }

    /// Stops counting `bytes` received from the client.
    pub fn release(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.held -= bytes;
        queue.count(&self.budget);
    }

    /// Queues a frame, as [`push_all`](Self::push_all) does.
    pub fn push(&self, frame: Frame) {
        self.push_all(std::slice::from_ref(&frame));
    }

    /// Queues frames for one write. If they exceed [`MAX_BYTES`], the transport is closed and no frame is skipped: the
    /// client reconnects and requests what it missed, but it would not notice a missing frame.
    pub fn push_all(&self, frames: &[Frame]) {
        let mut queue = self.queue.lock();
        if queue.admit(frames.iter().cloned(), &self.budget) {
            self.wake(queue);
        }
    }

    /// Queues frames as [`push_all`](Self::push_all) does. When this returns `true`, the client's task is not woken,
    /// and the caller must call [`flush`](Self::flush) soon.
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

    /// Queues the answer to a request of the client. Answers have their own bound, [`MAX_ANSWERS`]. An application that
    /// limits the requests in flight per client, and waits for [`space`](Self::space) before each, exceeds this bound
    /// only for a client that does not read.
    pub fn answer(&self, frames: &[Frame]) {
        if frames.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.admit(frames.iter().map(Frame::as_answer), &self.budget) {
            self.wake(queue);
        }
    }

    /// Replaces all queued frames with `last`, and requests that the transport is closed after them.
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

    /// Requests that the transport is closed. [`Close::Now`] overrides [`Close::Flushed`].
    pub fn close(&self, close: Close) {
        let mut queue = self.queue.lock();
        queue.close = queue.close.max(Some(close));
        self.wake(queue);
    }

    /// The number of bytes held for the client: queued, kept for a repeated poll, and received.
    pub fn bytes(&self) -> usize {
        self.queue.lock().total()
    }

    /// Sets the number of bytes that were sent but are kept for a repeated poll.
    pub fn keep(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.kept = bytes;
        queue.count(&self.budget);
    }

    /// Drops the queued frames and requests that the transport is closed; `reason` is the label in the metric.
    pub fn evict(&self, reason: &'static str) {
        let mut queue = self.queue.lock();
        queue.overflow(reason, &self.budget);
        self.wake(queue);
    }

    /// Requests that the transport is closed and stops counting all bytes, because the session has ended.
    pub fn release_all(&self) {
        let mut queue = self.queue.lock();
        queue.is_over = true;
        queue.count(&self.budget);
        queue.close = Some(Close::Now);
        self.wake(queue);
    }

    /// Reports that a GET has ended.
    pub fn get_ended(&self) {
        self.changed.notify_waiters();
    }

    /// Completes after the next change: there is space again, the transport must be closed, or a GET has ended.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Completes when the transport must be closed immediately.
    pub async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.closing() == Some(Close::Now) {
                return;
            }
            changed.await;
        }
    }

    /// Wakes the client's task without queueing a frame, for example when back pressure ends.
    pub fn nudge(&self) {
        self.wake_task(self.queue.lock());
    }

    /// Wakes the client's task if no other task will write the queued frames, or if the transport must be closed.
    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        if queue.close.is_some() {
            // Tasks that wait for space must not wait forever.
            self.changed.notify_waiters();
        }
        if queue.writer == Writer::Unassigned || queue.close.is_some() {
            self.wake_task(queue);
        }
    }

    fn wake_task(&self, mut queue: MutexGuard<'_, Queue>) {
        // Further wake-ups have no effect until the task runs.
        let first = !std::mem::replace(&mut queue.woken, true);
        drop(queue);
        if first {
            self.task.wake();
        }
    }

    /// When the transport must be closed; `None` while it stays open.
    pub fn closing(&self) -> Option<Close> {
        self.queue.lock().close
    }

    /// The cause of the end if the outbox itself requested it.
    pub(crate) fn cause(&self) -> Option<Ending> {
        self.queue.lock().cause
    }

    /// Completes when at most 256 KiB are queued for the client, or when its transport must be closed.
    pub async fn space(&self) {
        loop {
            let changed = self.changed.notified();
            if self.has_space() {
                return;
            }
            changed.await;
        }
    }

    /// Completes when the client's holder has at most an equal share, or when at most half of the memory limit is in
    /// use; see [`Budget::space_for`]. The metric counts the wait under `what`.
    pub async fn within_share(&self, what: &'static str) {
        if !self.budget.is_ample() {
            let share = self.share();
            self.budget.space_for(&share, what).await;
        }
    }

    /// Whether [`space`](Self::space) completes immediately.
    pub fn has_space(&self) -> bool {
        let queue = self.queue.lock();
        queue.cost.all <= LOW || queue.close.is_some()
    }

    /// Whether no frame is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().frames.is_empty()
    }

    /// Resets the wake-up of the client's task, which runs now. Returns when the transport must be closed, if it must.
    pub fn look(&self) -> Option<Close> {
        let mut queue = self.queue.lock();
        queue.woken = false;
        queue.close
    }

    /// Frees queue capacity that a burst allocated.
    pub fn shrink(&self) {
        self.queue.lock().frames.shrink_to(4);
    }

    /// Removes frames for one polling payload: at most `packets` frames, and at most `bytes` unless the first frame
    /// alone is larger. They count as sent.
    pub fn take_some(&self, packets: usize, bytes: usize) -> Vec<Frame> {
        let mut queue = self.queue.lock();
        let mut taken = Vec::new();
        let mut total = 0;
        if self.budget.is_paused() {
            // The task that resumes the process wakes all sessions.
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

    /// Whether [`take_some`](Self::take_some) has removed frames since the last call.
    pub fn was_taken(&self) -> bool {
        std::mem::take(&mut self.queue.lock().was_taken)
    }

    /// Ready when the client's task must run.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        if self.queue.lock().woken { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.lock().forget(&self.budget);
    }
}

#[cfg(test)]
mod tests;

//! One lane: appends queued rows to the log, batch after batch.

use std::sync::Arc;
use std::time::Duration;

use confab_common::Error;
use confab_common::telemetry::trace::Batch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::Pending;
use super::group::Group;
use super::queue::Queue;
use super::reacting::Target;
use crate::batch;
use crate::metrics::METRICS;
use crate::publish::Hints;
use crate::store::Store;

/// How long a partition whose head was locked stays aside while no new rows arrive for it, because the next batch would
/// find the same lock.
const ASIDE_TIME: Duration = Duration::from_secs(2);

/// The store and the bus of a lane.
#[derive(Clone)]
pub(super) struct Log {
    pub store: Arc<dyn Store>,
    pub hints: Hints,
    pub tasks: TaskTracker,
}

impl Log {
    /// Appends groups, publishes hints, and answers. Returns the groups that were not appended because a head is
    /// locked.
    async fn append(&self, mut groups: Vec<Group>) -> Vec<Group> {
        let now = Instant::now();
        if let Some(oldest) = groups.first() {
            METRICS.queue.record(oldest.waited(now));
        }
        // A caller that was dropped expects no answer, so its rows can be dropped.
        groups.retain(|group| !group.is_orphan());
        let alive = |row: &&Pending| row.deadline > now;
        let rows = || groups.iter().flat_map(Group::rows).filter(alive);
        let batch: Vec<_> = rows().map(|row| row.data.clone()).collect();
        let spans = Batch::begin("append", rows().map(|row| &row.span));
        let until = rows().map(|row| row.deadline).max().unwrap_or(now);
        let answers = if batch.is_empty() {
            Vec::new()
        } else {
            spans.lead().instrument(batch::append(&*self.store, &batch, until)).await
        };
        METRICS.append_rows.record(batch.len() as f64);
        METRICS.append.record(now.elapsed());
        self.hints.publish(
            answers.iter().enumerate().filter_map(|(index, answer)| Some((answer.as_ref()?, spans.of(index)))),
        );
        let mut answers = answers.into_iter();
        let mut next = |row: &Pending| {
            if alive(&row) {
                answers.next().unwrap_or_else(|| Some(Err(Error::timeout())))
            } else {
                Some(Err(Error::timeout()))
            }
        };
        groups.into_iter().filter_map(|group| group.answer(&mut next)).collect()
    }
}

#[derive(Default)]
pub(super) struct Lane {
    // Locked to add or take groups, never across an await.
    queue: Mutex<Queue>,
    wake: Notify,
    wake_aside: Notify,
}

impl Lane {
    /// Queues a caller's rows, or rejects them.
    pub fn admit(&self, target: Option<Target>, group: Group) {
        self.change(|queue| match target {
            Some(target) => queue.admit_reactions(target, group),
            None => queue.admit(group),
        });
    }

    /// Rejects new rows; the lane ends when no row is left.
    pub fn close(&self) {
        self.change(|queue| queue.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        let has_aside = queue.has_aside();
        drop(queue);
        self.wake.notify_one();
        if has_aside {
            self.wake_aside.notify_waiters();
        }
    }

    pub async fn run(self: Arc<Self>, log: Log) {
        while let Some(groups) = self.take().await {
            let locked = log.append(groups).await;
            if !locked.is_empty() {
                // The database does not report which head is locked, so each partition continues separately. Partitions
                // with a free head soon return to the lane.
                let partitions = self.queue.lock().set_aside(locked);
                partitions
                    .into_iter()
                    .for_each(|partition| _ = log.tasks.spawn(self.clone().run_aside(partition, log.clone())));
            }
        }
    }

    /// Appends the rows of one partition until its head is free and no row is left.
    async fn run_aside(self: Arc<Self>, partition: u32, log: Log) {
        let mut locked = false;
        while let Some(groups) = self.take_aside(partition, locked).await {
            let refused = log.append(groups).await;
            locked = !refused.is_empty();
            self.queue.lock().put_back(partition, refused);
        }
    }

    /// Takes all queued rows, up to one batch; `None` at the end.
    async fn take(&self) -> Option<Vec<Group>> {
        loop {
            let due = {
                let mut queue = self.queue.lock();
                let taken = queue.take();
                if queue.has_aside() {
                    self.wake_aside.notify_waiters();
                }
                if !taken.is_empty() {
                    return Some(taken);
                }
                if queue.closed {
                    return None;
                }
                queue.reactions_due()
            };
            match due {
                Some(due) => _ = timeout_at(due, self.wake.notified()).await,
                None => self.wake.notified().await,
            }
        }
    }

    /// Takes the rows of a partition that is aside, up to one batch; `None` when it is no longer aside.
    async fn take_aside(&self, partition: u32, locked: bool) -> Option<Vec<Group>> {
        let until = Instant::now() + if locked { ASIDE_TIME } else { Duration::ZERO };
        loop {
            let woken = self.wake_aside.notified();
            {
                let mut queue = self.queue.lock();
                let taken = queue.take_aside(partition);
                if !taken.is_empty() {
                    return Some(taken);
                }
                if queue.closed || Instant::now() >= until {
                    queue.bring_back(partition);
                    return None;
                }
            }
            let _ = timeout_at(until, woken).await;
        }
    }
}

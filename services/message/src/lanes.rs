//! The way into the log: a few lanes, each with one append in flight. When it returns, everything queued goes into the next.
//! There is no timer: idle latency is one transaction, loaded throughput is the batch's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use confab_common::{Error, Result};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::batch::{self, Answer};
use crate::publish::Hints;
use crate::store::{Draft, Store};

/// Most drafts in one append, unless a single caller brings more.
const BATCH_ROWS: usize = 256;
/// Most bytes in one append, likewise.
const BATCH_BYTES: usize = 256 * 1024;
/// Most bytes that wait for one lane.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// While something has waited for longer, a lane takes nothing more.
const QUEUE_AGE: Duration = Duration::from_millis(250);

/// A draft and when its caller stops waiting.
#[derive(Debug, Clone)]
pub struct Pending {
    /// What to append.
    pub draft: Arc<Draft>,
    /// When to drop it if it has not been begun.
    pub deadline: Instant,
}

/// The lanes of one replica. A partition belongs to one lane.
pub struct Lanes {
    lanes: Vec<Arc<Lane>>,
    partitions: u32,
    tasks: TaskTracker,
}

/// What one caller brings to one lane at once. It is never spread over two appends, so that a failure cannot reorder it.
struct Group {
    rows: Vec<Pending>,
    bytes: usize,
    arrived: Instant,
    answer: oneshot::Sender<Vec<Answer>>,
}

#[derive(Default)]
struct Lane {
    // A std lock: held to add or take groups, never across an await.
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    groups: VecDeque<Group>,
    bytes: usize,
    closed: bool,
}

impl Lanes {
    /// Starts `count` lanes into the store of a log of so many partitions. A lane has neighbouring partitions, as the lanes of
    /// the gateways do, so that what comes together stays together.
    pub fn start(count: usize, partitions: u32, store: &Arc<dyn Store>, hints: &Hints) -> Self {
        let tasks = TaskTracker::new();
        let lanes: Vec<Arc<Lane>> = (0..count.max(1)).map(|_| Arc::default()).collect();
        for lane in &lanes {
            tasks.spawn(lane.clone().run(store.clone(), hints.clone()));
        }
        tasks.close();
        Self { lanes, partitions, tasks }
    }

    /// Appends drafts, those of one partition in the order given, and answers each.
    pub async fn append(&self, rows: Vec<Pending>) -> Vec<Answer> {
        let mut by_lane = BTreeMap::<usize, (Vec<usize>, Vec<Pending>)>::new();
        let total = rows.len();
        for (index, row) in rows.into_iter().enumerate() {
            let group = by_lane.entry(self.lane_of(row.draft.partition)).or_default();
            group.0.push(index);
            group.1.push(row);
        }
        // Every lane has its rows before the first is waited for.
        let waiting: Vec<_> = by_lane.into_iter().map(|(lane, (indexes, rows))| (indexes, self.lanes[lane].admit(rows))).collect();
        let mut answers = vec![None; total];
        for (indexes, admitted) in waiting {
            let outcome = match admitted {
                // A lane that ended without an answer has perhaps done it.
                Ok(answer) => answer.await.map_err(|_| Error::timeout()),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(group) => indexes.into_iter().zip(group).for_each(|(i, answer)| answers[i] = Some(answer)),
                Err(error) => indexes.into_iter().for_each(|i| answers[i] = Some(Err(error.clone()))),
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Error::internal("a row without an answer")))).collect()
    }

    fn lane_of(&self, partition: u32) -> usize {
        let lane = partition as usize * self.lanes.len() / self.partitions as usize;
        lane.min(self.lanes.len() - 1)
    }

    /// Takes nothing more, appends what is queued, publishes its hints, and ends the lanes.
    pub async fn finish(&self) {
        for lane in &self.lanes {
            lane.queue().closed = true;
            lane.wake.notify_one();
        }
        self.tasks.wait().await;
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.queue().closed = true;
            lane.wake.notify_one();
        }
    }
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues rows, all or none of them.
    fn admit(&self, rows: Vec<Pending>) -> Result<oneshot::Receiver<Vec<Answer>>> {
        let bytes = rows.iter().map(|row| row.draft.size()).sum();
        let (answer, answered) = oneshot::channel();
        let arrived = Instant::now();
        let mut queue = self.queue();
        let stale = queue.groups.front().is_some_and(|oldest| oldest.arrived + QUEUE_AGE < arrived);
        if queue.closed || stale || (queue.bytes > 0 && queue.bytes + bytes > QUEUE_BYTES) {
            drop(queue);
            metrics::counter!("confab_message_refused_total").increment(1);
            return Err(Error::unavailable("the log"));
        }
        queue.bytes += bytes;
        queue.groups.push_back(Group { rows, bytes, arrived, answer });
        drop(queue);
        self.wake.notify_one();
        Ok(answered)
    }

    async fn run(self: Arc<Self>, store: Arc<dyn Store>, hints: Hints) {
        while let Some(mut groups) = self.take().await {
            let now = Instant::now();
            // Whoever has left was told nothing, so nothing is owed to them.
            groups.retain(|group| !group.answer.is_closed());
            let alive = |row: &&Pending| row.deadline > now;
            let rows = || groups.iter().flat_map(|group| &group.rows).filter(alive);
            let drafts: Vec<_> = rows().map(|row| row.draft.clone()).collect();
            #[cfg(feature = "failpoints")]
            let drafts = crate::sabotage::before_append(&*store, &hints, drafts).await;
            let until = rows().map(|row| row.deadline).max().unwrap_or(now);
            let answers = if drafts.is_empty() { Vec::new() } else { batch::append(&*store, &drafts, until).await };
            metrics::histogram!("confab_message_append_rows").record(drafts.len() as f64);
            metrics::histogram!("confab_message_append_seconds").record(now.elapsed().as_secs_f64());
            #[cfg(feature = "failpoints")]
            crate::sabotage::after_append(&answers);
            hints.publish(&answers);
            let mut answers = answers.into_iter();
            for group in groups {
                let mut next = |row: &Pending| match alive(&row) {
                    true => answers.next().unwrap_or_else(|| Err(Error::timeout())),
                    false => Err(Error::timeout()),
                };
                let _ = group.answer.send(group.rows.iter().map(&mut next).collect());
            }
        }
    }

    /// Everything queued, up to one batch; `None` at the end.
    async fn take(&self) -> Option<Vec<Group>> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.groups.is_empty() {
                    return Some(queue.take());
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

impl Queue {
    fn take(&mut self) -> Vec<Group> {
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(group) = self.groups.pop_front() {
            rows += group.rows.len();
            bytes += group.bytes;
            if !taken.is_empty() && (rows > BATCH_ROWS || bytes > BATCH_BYTES) {
                self.groups.push_front(group);
                break;
            }
            self.bytes -= group.bytes;
            taken.push(group);
        }
        taken
    }
}

#[cfg(test)]
mod tests;

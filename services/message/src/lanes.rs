//! The way into the log: a few lanes, each with one append in flight. When the append returns, everything queued goes
//! into the next append. There is no timer: the latency of an idle lane is one transaction, and the throughput under
//! load grows with the batches. A partition whose head another transaction has locked is set aside, so that it does not
//! delay other partitions.

mod group;
mod lane;
mod queue;
mod reacting;

use std::collections::BTreeMap;
use std::sync::Arc;

use confab_common::Error;
use confab_common::telemetry::trace::Span;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::batch::Answer;
use crate::publish::Hints;
use crate::store::{EventData, Store};
use group::Group;
use lane::{Lane, Log};
use reacting::{Target, target_of};

/// An event and when its caller stops waiting.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The event to append.
    pub data: Arc<EventData>,
    /// When to drop the event if its append has not begun.
    pub deadline: Instant,
    /// The span of the caller's request.
    pub span: Span,
}

/// The lanes of one replica. A partition belongs to one lane.
pub struct Lanes {
    lanes: Vec<Arc<Lane>>,
    partitions: u32,
    tasks: TaskTracker,
}

impl Lanes {
    /// Starts `count` lanes into the store of a log with `partitions` partitions. Like a gateway's lane, a lane has
    /// neighbouring partitions, so that events that arrive together stay together.
    pub fn start(count: usize, partitions: u32, store: &Arc<dyn Store>, hints: &Hints) -> Self {
        let tasks = TaskTracker::new();
        let log = Log { store: store.clone(), hints: hints.clone(), tasks: tasks.clone() };
        let lanes: Vec<Arc<Lane>> = (0..count.max(1)).map(|_| Arc::default()).collect();
        for lane in &lanes {
            tasks.spawn(lane.clone().run(log.clone()));
        }
        tasks.close();
        Self { lanes, partitions, tasks }
    }

    /// Appends events and answers each. Events of one partition are appended in the given order, except reactions, which
    /// may be appended later.
    pub async fn append(&self, rows: Vec<Pending>) -> Vec<Answer> {
        let mut answers = vec![None; rows.len()];
        let mut by_lane = BTreeMap::<(usize, Option<Target>), Vec<(usize, Pending)>>::new();
        for (index, row) in rows.into_iter().enumerate() {
            let key = (self.lane_of(row.data.partition), target_of(&row.data));
            by_lane.entry(key).or_default().push((index, row));
        }
        let (answered, mut parts) = mpsc::unbounded_channel();
        // Every lane gets its rows before the first is awaited.
        for ((lane, target), rows) in by_lane {
            self.lanes[lane].admit(target, Group::new(rows, answered.clone()));
        }
        drop(answered);
        while let Some(part) = parts.recv().await {
            part.into_iter().for_each(|(index, answer)| answers[index] = Some(answer));
        }
        // A lane that ended without an answer may have appended the event.
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Error::timeout()))).collect()
    }

    fn lane_of(&self, partition: u32) -> usize {
        let lane = partition as usize * self.lanes.len() / self.partitions as usize;
        lane.min(self.lanes.len() - 1)
    }

    /// Rejects new rows, appends the queued rows, publishes their hints, and ends the lanes.
    pub async fn finish(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
        self.tasks.wait().await;
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

#[cfg(test)]
mod locked;
#[cfg(test)]
mod tests;

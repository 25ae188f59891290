//! Reactions on their way to the message service. They are not in the lanes, because the service holds those to one
//! message for up to 100 ms, so that it appends them together; no message waits for that. Each message has one append of
//! reactions in flight, so that the acts of one user keep their order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use uuid::Uuid;

use super::job::{Batch, Job, Load};
use super::lane;
use crate::clients::Clients;

/// Most appends in flight, of all messages.
const CALLS: usize = 64;
/// How long reactions wait that the service cannot append now.
const AGAIN: Duration = Duration::from_millis(50);

/// A room, and the `seq` of a message in it.
pub type Target = (Uuid, u64);

/// The waiting reactions of a gateway.
pub struct Reacting {
    /// By message. A message has an entry as long as its task runs.
    // Locked to add or take reactions, never across an await.
    waiting: Mutex<HashMap<Target, VecDeque<Job>>>,
    pub load: Arc<Load>,
    calls: Semaphore,
    clients: Clients,
}

impl Reacting {
    pub fn new(clients: &Clients) -> Self {
        let (waiting, calls) = (Mutex::default(), Semaphore::new(CALLS));
        Self { waiting, load: Arc::default(), calls, clients: clients.clone() }
    }

    /// Queues a reaction behind the earlier ones to its message.
    pub fn push(self: &Arc<Self>, lane: u32, target: Target, job: Job) {
        let mut waiting = self.waiting.lock();
        let is_new = !waiting.contains_key(&target);
        waiting.entry(target).or_default().push_back(job);
        drop(waiting);
        if is_new {
            tokio::spawn(self.clone().run(lane, target));
        }
    }

    /// Appends the reactions to a message until none waits.
    async fn run(self: Arc<Self>, lane: u32, target: Target) {
        loop {
            let Ok(_permit) = self.calls.acquire().await else { return };
            let Some(batch) = self.take(target) else { return };
            let rejected = lane::append(lane, batch.jobs, &self.clients).await;
            if !rejected.is_empty() {
                self.put_back(target, rejected);
                sleep(AGAIN).await;
            }
        }
    }

    fn take(&self, target: Target) -> Option<Batch> {
        let mut waiting = self.waiting.lock();
        let jobs = waiting.get_mut(&target)?;
        if jobs.is_empty() {
            waiting.remove(&target);
            return None;
        }
        let mut batch = Batch::default();
        batch.fill(jobs);
        Some(batch)
    }

    fn put_back(&self, target: Target, rejected: Vec<Job>) {
        let mut waiting = self.waiting.lock();
        let jobs = waiting.entry(target).or_default();
        rejected.into_iter().rev().for_each(|job| jobs.push_front(job));
    }
}

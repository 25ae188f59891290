//! Follows the log: by hints from the bus, and by reading the log when a hint is missing.
//!
//! A task follows one partition while a client is in one of its rooms, and for [`FOLLOW_LINGER`] longer. The task reads its
//! start position *after* the bus has confirmed its subscription, so that no event falls between the two.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confab_common::bus::{self, Bus, Notice, Notices};
use confab_common::failpoint;
use confab_common::process::Process;
use confab_common::readiness::Condition;
use confab_proto::{channel, partition};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::hub::{Hub, Listener};
use super::lag::Lag;
use super::log::{Log, POLL, POLL_DEGRADED};
use super::partition::{Input, PartitionTask};
use crate::clients::Clients;
use crate::metrics::METRICS;

/// How long a partition is followed after the last client on this gateway has left its rooms.
const FOLLOW_LINGER: Duration = Duration::from_secs(60);
/// Hints queued for a partition's task. When the queue is full, hints are dropped and the task reads the log.
const INPUTS: usize = 1024;

/// Follows partitions and hands their events to the hub.
pub struct Follower<L> {
    hub: Arc<Hub<L>>,
    pub(super) log: Arc<Log>,
    // The lock is held for a look-up or a change, never across an await.
    followed: Mutex<HashMap<u32, Followed>>,
    /// Number of partitions of the log; 0 until the message service has answered.
    count: watch::Sender<u32>,
    /// Met while every followed partition reaches each known head in time.
    keeping_up: Condition,
}

struct Followed {
    inputs: mpsc::Sender<Input>,
    ready: watch::Receiver<bool>,
    /// The position up to which the task has handed events to the hub.
    reached: Arc<AtomicU64>,
    lag: Lag,
    /// When the last client on this gateway left the partition's rooms.
    unused: Option<Instant>,
}

impl<L: Listener + 'static> Follower<L> {
    /// Starts the follower. The process is ready once the message service has answered.
    pub fn start(hub: Arc<Hub<L>>, clients: Clients, bus: &Bus, process: &Process) -> Arc<Self> {
        let (subscriptions, notices) = bus.listen();
        let follower = Arc::new(Self {
            hub,
            log: Arc::new(Log::new(clients, subscriptions)),
            followed: Mutex::default(),
            count: watch::channel(0).0,
            keeping_up: process.readiness.condition("the log to be followed"),
        });
        follower.keeping_up.set(true);
        tokio::spawn(follower.clone().listen(notices));
        let known = process.readiness.condition("the message service");
        let polling = follower.clone();
        let shutdown = process.shutdown.clone();
        tokio::spawn(async move {
            let learn = async {
                while polling.poll(&[]).await.is_none() {
                    sleep(POLL_DEGRADED).await;
                }
                known.set(true);
                polling.keep_polling().await;
            };
            // Sockets are drained before the process ends; the follower runs until then.
            tokio::select! {
                () = learn => {}
                () = async { shutdown.cancelled().await; sleep(FOLLOW_LINGER).await } => {}
            }
        });
        follower
    }

    /// The partition of a room. Waits until the number of partitions is known.
    pub async fn partition_of(&self, room: Uuid) -> u32 {
        let mut count = self.count.subscribe();
        let known = count.wait_for(|count| *count > 0).await.map(|count| *count);
        match known {
            Ok(count) => partition::of_room(room, count),
            Err(_) => std::future::pending().await,
        }
    }

    /// Completes when a task follows the partition. The caller must first register one of the partition's rooms in the
    /// hub.
    pub async fn follow(self: &Arc<Self>, partition: u32) {
        let mut ready = {
            let mut followed = self.followed.lock();
            let followed = followed.entry(partition).or_insert_with(|| {
                let (inputs, queue) = mpsc::channel(INPUTS);
                let (ready, followed) = watch::channel(false);
                let reached = Arc::<AtomicU64>::default();
                let task = PartitionTask::new(self.log.clone(), self.hub.clone(), partition, queue, reached.clone());
                tokio::spawn(task.run(ready));
                Followed { inputs, ready: followed, reached, lag: Lag::default(), unused: None }
            });
            followed.unused = None;
            followed.ready.clone()
        };
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn listen(self: Arc<Self>, mut notices: Notices) {
        while let Some(notice) = notices.next().await {
            match notice {
                Notice::Message { channel, payload } => {
                    let Some(partition) = channel::log_partition(&channel) else { continue };
                    if failpoint!("drop-hints") {
                        continue;
                    }
                    let inputs = self.followed.lock().get(&partition).map(|followed| followed.inputs.clone());
                    if inputs.is_some_and(|inputs| inputs.try_send(Input::Hint(payload)).is_err()) {
                        bus::dropped("slow_partition", 1);
                    }
                }
                Notice::Up => self.log.set_bus_up(true),
                Notice::Down => self.log.set_bus_up(false),
            }
        }
    }

    async fn keep_polling(self: Arc<Self>) {
        loop {
            let begin = Instant::now();
            if failpoint!("skip-heads") {
                sleep(POLL).await;
                continue;
            }
            self.drop_unused();
            self.drop_ended();
            let partitions = self.followed.lock().keys().copied().collect::<Vec<_>>();
            // The partition may have been unused since the beginning of this pass.
            let partitions = if failpoint!("skip-heads") { Vec::new() } else { partitions };
            // A message service that does not answer does not make this gateway unready.
            let keeping_up = partitions.is_empty() || self.poll(&partitions).await.unwrap_or(true);
            self.keeping_up.set(keeping_up);
            METRICS.keeping_up.set(f64::from(u8::from(keeping_up)));
            METRICS.followed.set(partitions.len() as f64);
            self.log.poll_is_due(begin).await;
        }
    }

    /// Polls the heads of all followed partitions. `false` when the message service did not answer.
    pub async fn catch_up(&self) -> bool {
        let partitions = self.followed.lock().keys().copied().collect::<Vec<_>>();
        partitions.is_empty() || self.poll(&partitions).await.is_some()
    }

    /// Polls heads and sends them to the partitions' tasks. Returns whether the tasks keep up with them; `None` when
    /// the message service did not answer.
    async fn poll(&self, partitions: &[u32]) -> Option<bool> {
        let heads = self.log.heads(partitions).await?;
        self.count.send_if_modified(|count| {
            *count == 0 && {
                *count = heads.partition_count;
                true
            }
        });
        let (mut keeping_up, mut lag) = (true, 0);
        let mut followed = self.followed.lock();
        for head in heads.heads {
            let Some(followed) = followed.get_mut(&head.partition) else { continue };
            let reached = followed.reached.load(Ordering::Relaxed);
            keeping_up &= followed.lag.see(reached, head.position, Instant::now());
            lag = lag.max(head.position.saturating_sub(reached));
            // A full queue means that the task has hints to handle: the next poll is early enough.
            let _ = followed.inputs.try_send(Input::Head { epoch: heads.epoch.clone(), position: head.position });
        }
        METRICS.lag.set(lag as f64);
        Some(keeping_up)
    }

    /// Handles a partition whose task has panicked: closes its clients, which reconnect and so start a new task.
    fn drop_ended(&self) {
        let ended = self
            .followed
            .lock()
            .extract_if(|_, followed| followed.inputs.is_closed())
            .map(|(partition, _)| partition)
            .collect::<Vec<_>>();
        for partition in ended {
            tracing::error!(partition, "the task that follows this partition ended unexpectedly");
            self.hub.resync(partition);
        }
    }

    fn drop_unused(&self) {
        let used = self.hub.partitions();
        self.followed.lock().retain(|partition, followed| {
            if used.contains(partition) {
                followed.unused = None;
                return true;
            }
            let keep = followed.unused.get_or_insert_with(Instant::now).elapsed() < FOLLOW_LINGER;
            if !keep {
                // The task ends when its inputs are dropped.
                self.log.subscriptions.unsubscribe(channel::log(*partition));
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests;

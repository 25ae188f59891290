//! Follows one partition: puts hints in order, repairs holes from the log and hands events to the hub.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_common::bus;
use confab_common::telemetry::trace::{self, Span};
use confab_proto::channel;
use confab_proto::message::v1::{Event, Hint};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::effect::Effect;
use super::event;
use super::hub::{Delivery, Hub, Listener};
use super::log::Log;
use crate::metrics::METRICS;

/// How long a hint beyond a hole waits for its predecessor, in case the hints of two replicas crossed.
const REORDER: Duration = Duration::from_millis(20);
/// Most hints, and most bytes, that are parked beyond a hole.
const MAX_PARKED: usize = 64;
const MAX_PARKED_BYTES: usize = 256 * 1024;
/// Largest hole that is replayed, in positions. Above it, the clients reconnect and request the events that they
/// missed.
const MAX_HOLE: u64 = 10_000;
/// Most bytes of one page of the log. Encoded as JSON with all fields they grow up to sixfold, which still fits into a
/// free outbox.
const PAGE_BYTES: u32 = 128 * 1024;
/// How long the next page waits for clients that have not read most of the last page.
const PACE: Duration = Duration::from_secs(1);
/// Clients whose outboxes one task flushes: enough to make a task cheap, few enough to spread the work over threads.
const FLUSHED: usize = 32;
const SUBSCRIBE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);

/// Input of a partition's task.
pub enum Input {
    /// A hint, as received from the bus.
    Hint(Bytes),
    /// A head, as read from the database.
    Head { epoch: String, position: u64 },
}

/// The task that follows one partition.
pub struct PartitionTask<L> {
    log: Arc<Log>,
    hub: Arc<Hub<L>>,
    partition: u32,
    inputs: mpsc::Receiver<Input>,
    epoch: String,
    /// All events up to this position have been handed to the hub.
    position: u64,
    /// The events of hints beyond a hole, by first position.
    parked: BTreeMap<u64, Vec<Event>>,
    parked_bytes: usize,
    /// A copy of `position` for readers outside the task.
    reached: Arc<AtomicU64>,
    /// The newest position known to exist beyond `position`, and when to read the log if the hints have not arrived
    /// until then.
    hole: Option<(u64, Instant)>,
    /// The value of `position` when a lower head was last reported.
    low: Option<u64>,
}

impl<L: Listener + 'static> PartitionTask<L> {
    /// A task that is not running yet.
    pub fn new(
        log: Arc<Log>,
        hub: Arc<Hub<L>>,
        partition: u32,
        inputs: mpsc::Receiver<Input>,
        reached: Arc<AtomicU64>,
    ) -> Self {
        Self {
            log,
            hub,
            partition,
            inputs,
            reached,
            epoch: String::new(),
            position: 0,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            hole: None,
            low: None,
        }
    }

    /// Follows the partition until the inputs end. Signals `ready` when the start position is known.
    pub async fn run(mut self, ready: watch::Sender<bool>) {
        // Without the bus, polls of the heads are enough.
        let _ = timeout(SUBSCRIBE, self.log.subscriptions.subscribe(channel::log(self.partition))).await;
        loop {
            if let Some((epoch, position)) = self.log.head(self.partition).await {
                self.epoch = epoch;
                self.move_to(position);
                break;
            }
            if self.inputs.is_closed() {
                return;
            }
            sleep(RETRY).await;
        }
        ready.send_replace(true);
        loop {
            let repair = self.hole.map(|(_, at)| at);
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(Input::Hint(payload)) => self.hint(&payload),
                    Some(Input::Head { epoch, position }) => self.head(epoch, position),
                    None => return,
                },
                () = async { sleep_until(repair.unwrap_or_else(Instant::now)).await }, if repair.is_some() => self.repair().await,
            }
        }
    }

    fn hint(&mut self, payload: &Bytes) {
        let Some(mut hint) = read_hint(payload, self.partition) else { return bus::dropped("malformed", 1) };
        self.log.hide_deleted(&mut hint.events);
        if hint.epoch != self.epoch {
            // The heads decide which epoch is valid.
            return self.log.ask_soon();
        }
        let last = hint.first_position + hint.events.len() as u64 - 1;
        if hint.first_position <= self.position + 1 {
            let known = (self.position + 1 - hint.first_position) as usize;
            if known < hint.events.len() {
                self.deliver(&hint.events[known..], last);
                self.deliver_parked();
            }
        } else if self.parked.len() < MAX_PARKED && self.parked_bytes + payload.len() <= MAX_PARKED_BYTES {
            self.parked_bytes += payload.len();
            self.parked.insert(hint.first_position, hint.events);
            self.note_hole(last);
        } else {
            self.note_hole(last);
        }
    }

    fn deliver_parked(&mut self) {
        while let Some(entry) = self.parked.first_entry()
            && *entry.key() <= self.position + 1
        {
            let (first, events) = entry.remove_entry();
            let last = first + events.len() as u64 - 1;
            if last > self.position {
                self.deliver(&events[(self.position + 1 - first) as usize..], last);
            }
        }
        if self.parked.is_empty() {
            self.parked_bytes = 0;
        }
        if self.hole.is_some_and(|(target, _)| target <= self.position) {
            self.hole = None;
        }
    }

    fn note_hole(&mut self, target: u64) {
        let (known, at) = self.hole.unwrap_or((0, Instant::now() + REORDER));
        self.hole = Some((known.max(target), at));
    }

    fn head(&mut self, epoch: String, position: u64) {
        let low = self.low.take();
        // Epochs are UUIDv7: the newer epoch is the greater one.
        if epoch > self.epoch {
            self.skip_to(epoch, position);
        } else if epoch < self.epoch {
            // The answer of a replica that has not read the new epoch yet.
        } else if position > self.position {
            // The hint may still arrive.
            self.note_hole(position);
        } else if position < self.position {
            // An answer may be slightly stale. If the next head is below the same position, the task reads the log.
            match low {
                Some(at) if position < at => self.hole = Some((self.position, Instant::now())),
                _ => self.low = Some(self.position),
            }
        }
    }

    /// Continues at another position of the log. Clients in the partition's rooms reconnect and read the events that
    /// they missed.
    fn skip_to(&mut self, epoch: String, position: u64) {
        tracing::warn!(
            partition = self.partition,
            %epoch,
            position,
            "the log does not continue from the last position; clients reconnect"
        );
        METRICS.resyncs.increment(1);
        self.epoch = epoch;
        self.move_to(position);
        self.forget_hole();
        self.hub.resync(self.partition);
    }

    fn move_to(&mut self, position: u64) {
        self.position = position;
        self.reached.store(position, Ordering::Relaxed);
    }

    fn forget_hole(&mut self) {
        self.parked.clear();
        self.parked_bytes = 0;
        self.hole = None;
    }

    /// Skips a hole that is too large to replay, if the database confirms it: hints are not trusted.
    async fn skip_hole(&mut self, target: u64) {
        match self.log.head(self.partition).await {
            Some((epoch, position)) if epoch == self.epoch && position.saturating_sub(self.position) <= MAX_HOLE => {
                self.forget_hole();
                self.head(epoch, position);
            }
            Some((epoch, position)) if epoch >= self.epoch => self.skip_to(epoch, position),
            _ => self.hole = Some((target, Instant::now() + RETRY)),
        }
    }

    /// Reads the missing events from the log.
    async fn repair(&mut self) {
        let Some((target, _)) = self.hole else { return };
        self.log.note_miss();
        if target - self.position > MAX_HOLE {
            return self.skip_hole(target).await;
        }
        let Some(page) = self.log.read(self.partition, self.position, PAGE_BYTES).await else {
            self.hole = Some((target, Instant::now() + RETRY));
            return;
        };
        if page.epoch > self.epoch || (page.epoch == self.epoch && page.head < self.position) {
            return self.skip_to(page.epoch, page.head);
        }
        if page.epoch < self.epoch {
            self.hole = Some((target, Instant::now() + RETRY));
            return;
        }
        METRICS.repaired.increment(page.events.len() as u64);
        match page.events.last().map(|event| event.position) {
            Some(last) => {
                // The task waits for clients only if another page follows.
                let keeping_up = if last < target { self.keeping_up(&page.events) } else { Vec::new() };
                self.deliver(&page.events, last);
                self.hole = Some((target, Instant::now()));
                self.deliver_parked();
                if self.hole.is_some() {
                    pace(&keeping_up).await;
                }
            }
            // Positions that the log does not hold never existed: the hint was forged or wrong.
            None => self.forget_hole(),
        }
        if self.hole.is_some() || !self.log.is_bus_up() {
            return;
        }
        // A channel that missed a hint may have lost its subscription.
        let (subscriptions, name) = (self.log.subscriptions.clone(), channel::log(self.partition));
        tokio::spawn(async move { timeout(SUBSCRIBE, subscriptions.subscribe(name)).await });
    }

    /// The clients that receive these events and have read most of the earlier events.
    fn keeping_up(&self, events: &[Event]) -> Vec<Arc<L>> {
        let rooms = events.iter().filter_map(|event| event.room_id.parse().ok()).collect::<HashSet<_>>();
        let hearers = rooms.into_iter().flat_map(|room| self.hub.members(room));
        hearers.filter(|listener| listener.keeps_up()).collect()
    }

    fn deliver(&mut self, events: &[Event], last: u64) {
        self.move_to(last);
        let traced = events.iter().filter(|event| !event.traceparent.is_empty());
        let spans = traced
            .map(|event| Span::of_traceparent(&event.traceparent).child(trace::Kind::Consumer, "fan out"))
            .collect::<Vec<_>>();
        let mut deliveries = events
            .iter()
            .filter_map(|event| {
                let room = event.room_id.parse().ok()?;
                Some(Delivery { room, seq: event.seq, effect: Effect::of(event), event })
            })
            .collect::<Vec<_>>();
        // Order is guaranteed within a room. Grouped by room, events share locks and writes. The sort is stable.
        deliveries.sort_by_key(|delivery| delivery.room);
        let mut writers = Vec::new();
        let delivered = self.hub.fan_out(&deliveries, |event| event::encode(event), &mut writers);
        METRICS.deliveries.increment(delivered as u64);
        spans.iter().for_each(|span| span.set("confab.deliveries", || delivered as i64));
        while !writers.is_empty() {
            let some = writers.split_off(writers.len().saturating_sub(FLUSHED));
            tokio::spawn(async move { some.iter().for_each(|listener| listener.flush()) });
        }
    }
}

/// Waits until the clients have read most of their outboxes. The task does not wait again for a client that is too
/// slow: other clients of the partition must not wait for it repeatedly. Such a client is closed when its outbox is
/// full.
async fn pace<L: Listener>(clients: &[Arc<L>]) {
    let taken = async {
        for client in clients {
            client.caught_up().await;
        }
    };
    let _ = timeout(PACE, taken).await;
}

/// Reads a hint of this partition; `None` when it is malformed.
pub fn read_hint(payload: &Bytes, partition: u32) -> Option<Hint> {
    Hint::decode(payload.clone()).ok().filter(|hint| is_sound(hint, partition))
}

/// Whether a hint is plausible. Without a cluster key, any program that reaches the bus can publish hints.
fn is_sound(hint: &Hint, partition: u32) -> bool {
    // The database's largest integer.
    let bounded = (1..i64::MAX as u64).contains(&hint.first_position);
    let mut positions = (hint.first_position..).zip(&hint.events);
    let is_whole = |event: &Event| event.change.as_ref().is_none_or(|change| change.message.is_some());
    let sound = |(position, event): (u64, &Event)| event.position == position && event.seq > 0 && is_whole(event);
    bounded && hint.partition == partition && !hint.events.is_empty() && positions.all(sound)
}

#[cfg(test)]
mod tests;

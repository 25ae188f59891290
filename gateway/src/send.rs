//! Sends new events to the message service, in lanes that keep order and batch queued events into one append.
//!
//! Each room belongs to one lane. A lane has one append in flight; when the answer arrives, the next append takes all
//! events queued since. Queued messages share the cost of one call. The messages of one client to one room keep their
//! order, even when an append is repeated to another replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_common::grpc::{self, Call};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_identity::credential::{self, Credential, message_credential};
use confab_identity::deleted::DeletedUsers;
use confab_proto::message::v1::{AppendRequest, Event, NewEvent, Outcome, outcome};
use confab_proto::partition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clients::Clients;
use crate::metrics::METRICS;

/// A power of two, so that a lane holds a contiguous range of partitions, the same on all gateways.
const LANES: u32 = 8;
/// Most events, and most bytes, queued in a lane.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Most events, and most bytes, in one append.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes counted for an attached file: about the size of its metadata in the answer.
const FILE: usize = 1024;

/// A committed event.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The event as the log stores it.
    pub event: Event,
    /// `true` when an earlier send with the same id had already stored the event.
    pub duplicate: bool,
}

/// Sends events to the message service; clones share the lanes.
#[derive(Clone)]
pub struct Sender {
    lanes: Arc<[Lane]>,
}

struct Lane {
    jobs: mpsc::Sender<Job>,
    /// Bytes in the queue.
    bytes: Arc<AtomicUsize>,
}

struct Job {
    event: NewEvent,
    /// The credential of the sender. The event contains its digest.
    credential: Credential,
    deadline: Instant,
    answer: oneshot::Sender<Result<Sent>>,
    /// The trace span of the send.
    span: Span,
}

/// A send whose outcome is pending.
pub struct Sending {
    answer: oneshot::Receiver<Result<Sent>>,
    deadline: Instant,
}

impl Sending {
    /// Waits for the outcome until the deadline of the send.
    ///
    /// # Errors
    /// The reason why the message service rejected the event; `timeout` when the outcome is unknown at the deadline.
    pub async fn outcome(self) -> Result<Sent> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(Error::timeout()),
        }
    }
}

impl Sender {
    /// Starts a task for each lane.
    pub fn new(clients: &Clients) -> Self {
        let lane = |number| {
            let (jobs, queue) = mpsc::channel(QUEUE);
            let bytes = Arc::<AtomicUsize>::default();
            tokio::spawn(run(number, queue, bytes.clone(), clients.clone()));
            Lane { jobs, bytes }
        };
        Self { lanes: (0..LANES).map(lane).collect() }
    }

    /// Queues an event behind all earlier events of the same room.
    ///
    /// # Errors
    /// `unavailable` when the lane's queue is full.
    pub fn begin(&self, room: Uuid, event: NewEvent, credential: Credential, timeout: Duration) -> Result<Sending> {
        let deadline = Instant::now() + timeout;
        let (answer, receiver) = oneshot::channel();
        let lane = &self.lanes[partition::of_room(room, LANES) as usize];
        let size = size(&event);
        if lane.bytes.load(Ordering::Relaxed) + size > QUEUE_BYTES {
            return Err(too_much_waits());
        }
        lane.bytes.fetch_add(size, Ordering::Relaxed);
        let event = NewEvent { credential: credential.digest().map_or_else(Vec::new, Vec::from), ..event };
        lane.jobs.try_send(Job { event, credential, deadline, answer, span: Span::current() }).map_err(|_| {
            lane.bytes.fetch_sub(size, Ordering::Relaxed);
            too_much_waits()
        })?;
        Ok(Sending { answer: receiver, deadline })
    }

    /// Sends an event and waits for the outcome.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`outcome`](Sending::outcome).
    pub async fn send(&self, room: Uuid, event: NewEvent, credential: Credential, timeout: Duration) -> Result<Sent> {
        self.begin(room, event, credential, timeout)?.outcome().await
    }
}

fn too_much_waits() -> Error {
    METRICS.send_refused.increment(1);
    Error::unavailable("the message service")
}

/// The bytes counted for an event.
fn size(event: &NewEvent) -> usize {
    event.content.len() + event.file_ids.len() * FILE
}

async fn run(lane: u32, mut queue: mpsc::Receiver<Job>, waiting: Arc<AtomicUsize>, clients: Clients) {
    let mut jobs = Vec::with_capacity(BATCH);
    loop {
        if jobs.is_empty() && queue.recv_many(&mut jobs, BATCH).await == 0 {
            return;
        }
        while jobs.len() < BATCH
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let mut bytes = 0;
        let fit = jobs
            .iter()
            .take_while(|job| {
                bytes += size(&job.event);
                bytes <= BATCH_BYTES
            })
            .count();
        let batch = jobs.drain(..fit.max(1)).collect::<Vec<_>>();
        waiting.fetch_sub(batch.iter().map(|job| size(&job.event)).sum(), Ordering::Relaxed);
        append(lane, batch, &clients).await;
    }
}

/// Appends a batch and answers each event. The lane waits until events whose credentials the service does not know have
/// been sent again, so that no later event of their rooms overtakes them.
async fn append(lane: u32, batch: Vec<Job>, clients: &Clients) {
    let unknown = append_once(lane, batch, &[], clients).await;
    if unknown.is_empty() {
        return;
    }
    let mut credentials = unknown.iter().map(|job| job.credential.clone()).collect::<Vec<_>>();
    credentials.sort_unstable_by_key(Credential::digest);
    credentials.dedup_by_key(|credential| credential.digest());
    for job in append_once(lane, unknown, &credentials, clients).await {
        let _ = job.answer.send(Err(Error::unavailable("the message service")));
    }
}

/// Sends a batch with these credentials. Returns the jobs that the service has not tried, because it does not know a
/// credential.
async fn append_once(lane: u32, mut batch: Vec<Job>, credentials: &[Credential], clients: &Clients) -> Vec<Job> {
    let now = Instant::now();
    // The sender of an expired job has already received `timeout`. The job is dropped, because the sender may already
    // have repeated the message or sent newer ones.
    batch.retain(|job| job.deadline > now && !job.answer.is_closed());
    let Some(longest) = batch.iter().map(|job| job.deadline - now).max() else { return Vec::new() };
    // One call carries events of several traces: its span belongs to the first trace.
    let lead = batch.iter().map(|job| &job.span).find(|span| !span.is_none()).cloned().unwrap_or_default();
    let event = |job: &Job| NewEvent {
        timeout_ms: (job.deadline - now).as_millis() as u32,
        traceparent: job.span.traceparent(),
        ..job.event.clone()
    };
    METRICS.send_batch.record(batch.len() as f64);
    let call = Call::within(longest).attempt(Duration::from_secs(1)).keyed(lane.into());
    let credentials = credentials.iter().map(message_credential).collect();
    let request = grpc::request(AppendRequest { events: batch.iter().map(event).collect(), credentials }, call);
    let mut client = clients.message.clone();
    let mut unknown = Vec::new();
    match lead.instrument(client.append(request)).await {
        Ok(response) => {
            for (job, outcome) in batch.into_iter().zip(response.into_inner().outcomes) {
                if is_unknown(&outcome) {
                    unknown.push(job);
                } else {
                    let _ = job.answer.send(sent(outcome, &clients.deleted));
                }
            }
        }
        Err(status) => {
            let error = Error::from(status);
            for job in batch {
                let _ = job.answer.send(Err(error.clone()));
            }
        }
    }
    unknown
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(&outcome.result, Some(outcome::Result::Refusal(refusal)) if refusal.code == credential::UNKNOWN)
}

fn sent(outcome: Outcome, deleted: &DeletedUsers) -> Result<Sent> {
    match outcome.result {
        Some(outcome::Result::Event(mut event)) => {
            // A repeated message may have files of other users.
            deleted.hide_in_events(std::slice::from_mut(&mut event));
            Ok(Sent { event, duplicate: outcome.duplicate })
        }
        Some(outcome::Result::Refusal(refusal)) => match Code::parse(&refusal.code).unwrap_or(Code::Internal) {
            Code::Unavailable => Err(Error::unavailable("the message service")),
            // The token was valid when the event arrived here. Before it ended, another replica may have appended the
            // event in an attempt that this gateway has given up.
            Code::Unauthorized => Err(Error::timeout()),
            code => Err(Error::new(code, refusal.detail)),
        },
        None => Err(Error::internal("an append without an outcome")),
    }
}

#[cfg(test)]
mod tests;

//! The way of a new event to the log: lanes that keep order and put what queues up into one append.
//!
//! A room belongs to one lane, a lane has one append under way and, when it is answered, takes everything that has queued up
//! since. So a hop costs what it costs once for many messages, and the sends of one client to one room keep their order, also
//! when an append is sent again to another replica.

use std::time::Duration;

use confab_common::grpc::Transport;
use confab_common::grpc::{self, Call};
use confab_common::{Code, Error, Result};
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{AppendRequest, Event, NewEvent, Outcome, outcome};
use confab_proto::partition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clients::Clients;

/// A power of two, so that a lane holds a contiguous range of partitions and all gateways agree on it.
const LANES: u32 = 8;
/// Events that may wait in a lane.
const QUEUE: usize = 4096;
/// Most events and content bytes of one append.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// An event that the log has taken.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The event as it stands in the log.
    pub event: Event,
    /// It was there before: this send repeats an earlier one.
    pub duplicate: bool,
}

/// Sends events to the log; clones share the lanes.
#[derive(Clone)]
pub struct Sender {
    lanes: std::sync::Arc<[mpsc::Sender<Job>]>,
}

struct Job {
    event: NewEvent,
    deadline: Instant,
    answer: oneshot::Sender<Result<Sent>>,
}

/// A send under way.
pub struct Sending {
    answer: oneshot::Receiver<Result<Sent>>,
    deadline: Instant,
}

impl Sending {
    /// The outcome, by the deadline of the send.
    ///
    /// # Errors
    /// What the log refused it for; `timeout` when the outcome is not known in time.
    pub async fn outcome(self) -> Result<Sent> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(Error::timeout()),
        }
    }
}

impl Sender {
    /// Starts the lanes.
    pub fn new(clients: &Clients) -> Self {
        let lane = |number| {
            let (jobs, queue) = mpsc::channel(QUEUE);
            tokio::spawn(run(number, queue, clients.message.clone()));
            jobs
        };
        Self { lanes: (0..LANES).map(lane).collect() }
    }

    /// Queues an event behind those queued before it for the same room.
    ///
    /// # Errors
    /// `unavailable` when too much is waiting already.
    pub fn begin(&self, room: Uuid, event: NewEvent, timeout: Duration) -> Result<Sending> {
        let deadline = Instant::now() + timeout;
        let (answer, receiver) = oneshot::channel();
        let lane = &self.lanes[partition::of_room(room, LANES) as usize];
        lane.try_send(Job { event, deadline, answer }).map_err(|_| Error::unavailable("the message service"))?;
        Ok(Sending { answer: receiver, deadline })
    }

    /// Sends an event and waits for the outcome.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`outcome`](Sending::outcome).
    pub async fn send(&self, room: Uuid, event: NewEvent, timeout: Duration) -> Result<Sent> {
        self.begin(room, event, timeout)?.outcome().await
    }
}

async fn run(lane: u32, mut queue: mpsc::Receiver<Job>, client: MessageServiceClient<Transport>) {
    let mut next = None;
    while let Some(first) = match next.take() {
        Some(job) => Some(job),
        None => queue.recv().await,
    } {
        let mut bytes = first.event.content.len();
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.event.content.len();
            if bytes > BATCH_BYTES {
                next = Some(job);
                break;
            }
            batch.push(job);
        }
        append(lane, batch, client.clone()).await;
    }
}

async fn append(lane: u32, batch: Vec<Job>, mut client: MessageServiceClient<Transport>) {
    let now = Instant::now();
    let mut answers = Vec::with_capacity(batch.len());
    let mut events = Vec::with_capacity(batch.len());
    let mut longest = Duration::ZERO;
    for job in batch {
        let left = job.deadline.saturating_duration_since(now);
        // Who has gone has been told that the outcome is unknown; it is kinder not to begin.
        if left.is_zero() || job.answer.is_closed() {
            continue;
        }
        longest = longest.max(left);
        events.push(NewEvent { timeout_ms: left.as_millis() as u32, ..job.event });
        answers.push(job.answer);
    }
    if events.is_empty() {
        return;
    }
    metrics::histogram!("confab_send_batch_events").record(events.len() as f64);
    let call = Call::within(longest).attempt(Duration::from_secs(1)).keyed(lane.into());
    match client.append(grpc::request(AppendRequest { events }, call)).await {
        Ok(response) => {
            for (answer, outcome) in answers.into_iter().zip(response.into_inner().outcomes) {
                let _ = answer.send(sent(outcome));
            }
        }
        Err(status) => {
            let error = Error::from(status);
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

fn sent(outcome: Outcome) -> Result<Sent> {
    match outcome.result {
        Some(outcome::Result::Event(event)) => Ok(Sent { event, duplicate: outcome.duplicate }),
        Some(outcome::Result::Refusal(refusal)) => match Code::parse(&refusal.code).unwrap_or(Code::Internal) {
            Code::Unavailable => Err(Error::unavailable("the message service")),
            code => Err(Error::new(code, refusal.detail)),
        },
        None => Err(Error::internal("an append without an outcome")),
    }
}

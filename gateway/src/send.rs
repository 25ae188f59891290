//! Sends new events to the message service, in lanes that keep order and batch queued events into one append.
//!
//! Each room belongs to one lane. A lane has one append in flight; when the answer arrives, the next append takes all
//! events queued since. Queued messages share the cost of one call. The messages of one client to one room keep their
//! order, even when an append is repeated to another replica. An event that the message service rejects with
//! `unavailable` is repeated until the send's deadline; the log recognises the repeat of an event that it has. The same
//! applies to an event whose credential a replica rejects: the gateway has verified the credential, but the replica may
//! not have the newest keys of its issuer. An event names the credential of its sender by the digest; if the message
//! service does not know it, the lane sends the event again with the credential before it sends later events.

mod held;
mod job;
mod lane;
mod reacting;

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{self, Call, Uncertain};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_identity::credential::Credential;
use confab_proto::message::v1::{AppendRequest, NewEvent, Op};
use confab_proto::partition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clients::Clients;
use crate::metrics::METRICS;
use job::{Job, Load, QUEUE};
use lane::{ATTEMPT, sent};
use reacting::Reacting;

pub use job::Sent;

/// A power of two, so that a lane holds a contiguous range of partitions, the same on all gateways.
const LANES: u32 = 8;

/// Sends events to the message service; clones share the lanes.
#[derive(Clone)]
pub struct Sender {
    lanes: Arc<[Lane]>,
    reacting: Arc<Reacting>,
    clients: Clients,
}

struct Lane {
    jobs: mpsc::Sender<Job>,
    load: Arc<Load>,
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
    /// The reason why the message service rejected the event; `unavailable` only when too little time is left for
    /// another attempt. `timeout` when the outcome is unknown at the deadline.
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
            tokio::spawn(lane::run(number, queue, clients.clone()));
            Lane { jobs, load: Arc::default() }
        };
        let (lanes, reacting) = ((0..LANES).map(lane).collect(), Arc::new(Reacting::new(clients)));
        Self { lanes, reacting, clients: clients.clone() }
    }

    /// Queues an event behind all earlier events of the same sender in the same room; a reaction, behind the earlier
    /// reactions to its message.
    ///
    /// # Errors
    /// `unavailable` when the lane is full.
    pub fn begin(&self, room: Uuid, event: NewEvent, credential: Credential, timeout: Duration) -> Result<Sending> {
        let deadline = Instant::now() + timeout;
        let (answer, receiver) = oneshot::channel();
        let number = partition::of_room(room, LANES);
        let lane = &self.lanes[number as usize];
        let reaction = event.change.as_ref().filter(|change| change.op() == Op::React);
        let target = reaction.map(|change| (room, change.target));
        let sender = event.sender.as_ref().and_then(|sender| sender.id.parse().ok()).unwrap_or_default();
        let event = NewEvent { credential: credential.digest().map_or_else(Vec::new, Vec::from), ..event };
        let load = if target.is_some() { &self.reacting.load } else { &lane.load };
        let space = load.add(&event).ok_or_else(too_much_waits)?;
        let (line, span) = ((room, sender), Span::current());
        let job = Job { event, credential, line, deadline, answer, is_uncertain: false, refusals: 0, span, space };
        match target {
            Some(target) => self.reacting.push(number, target, job),
            None => lane.jobs.try_send(job).map_err(|_| too_much_waits())?,
        }
        Ok(Sending { answer: receiver, deadline })
    }

    /// Sends an event and waits for the outcome.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`outcome`](Sending::outcome).
    pub async fn send(&self, room: Uuid, event: NewEvent, credential: Credential, timeout: Duration) -> Result<Sent> {
        self.begin(room, event, credential, timeout)?.outcome().await
    }

    /// Sends a change that a server key makes without a user, outside of the lanes: the key itself is the credential of
    /// the call, and the acts of different requests have no order.
    ///
    /// # Errors
    /// The reason why the message service rejected the change; `timeout` when the outcome is unknown.
    pub async fn send_alone(&self, event: NewEvent, key: &Credential, timeout: Duration) -> Result<Sent> {
        let events = vec![NewEvent { timeout_ms: timeout.as_millis().max(1) as u32, ..event }];
        let request = AppendRequest { events, credentials: Vec::new() };
        let request = key.attach(grpc::request(request, Call::within(timeout).attempt(ATTEMPT)));
        let response = self.clients.message.clone().append(request).await?;
        let is_uncertain = response.extensions().get::<Uncertain>().is_some();
        let outcome = response.into_inner().outcomes.pop().unwrap_or_default();
        match sent(outcome, &self.clients.deleted) {
            Err(error) if error.code == Code::Unavailable && is_uncertain => Err(Error::timeout()),
            sent => sent,
        }
    }
}

fn too_much_waits() -> Error {
    METRICS.send_refused.increment(1);
    Error::unavailable("the message service")
}

#[cfg(test)]
mod tests;

//! One lane: appends the queued sends, batch after batch, and repeats those that the message service rejects with
//! `unavailable`.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use confab_common::grpc::{self, Call};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_proto::message::v1::{AppendRequest, NewEvent, Outcome, outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::held::Held;
use super::job::{BATCH, Batch, Job, Sent};
use crate::clients::Clients;
use crate::deleted::DeletedUsers;
use crate::metrics::METRICS;

/// How long a replica may take before the append also goes to another one.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Runs a lane until its queue is closed.
pub async fn run(lane: u32, mut queue: mpsc::Receiver<Job>, clients: Clients) {
    let (mut jobs, mut held) = (VecDeque::with_capacity(BATCH), Held::new());
    loop {
        if jobs.is_empty() {
            tokio::select! {
                job = queue.recv() => match job {
                    Some(job) => jobs.push_back(job),
                    None => return,
                },
                () = held.due() => {}
            }
        }
        while jobs.len() < BATCH
            && let Ok(job) = queue.try_recv()
        {
            jobs.push_back(job);
        }
        jobs = held.pass(jobs);
        let mut batch = Batch::default();
        let due = held.take_due(&mut batch);
        batch.fill(&mut jobs);
        let rejected = append(lane, batch.jobs, &clients).await;
        held.put_back(rejected, due);
    }
}

/// Appends sends and answers them. Returns the sends that can be repeated, in their order.
async fn append(lane: u32, mut batch: Vec<Job>, clients: &Clients) -> Vec<Job> {
    let now = Instant::now();
    // The sender of an expired job has already received `timeout`. The job is dropped, because the sender may already
    // have repeated the message or sent newer ones.
    batch.retain(|job| job.is_expected(now));
    let Some(longest) = batch.iter().map(|job| job.deadline - now).max() else { return Vec::new() };
    let event = |job: &Job| NewEvent {
        timeout_ms: (job.deadline - now).as_millis() as u32,
        traceparent: job.span.traceparent(),
        ..job.event.clone()
    };
    let events: Vec<_> = batch.iter().map(event).collect();
    METRICS.send_batch.record(events.len() as f64);
    // One call carries events of several traces: its span belongs to the first trace.
    let none = Span::default();
    let lead = batch.iter().map(|job| &job.span).find(|span| !span.is_none()).unwrap_or(&none);
    let call = Call::within(longest).attempt(ATTEMPT).keyed(lane.into());
    let mut client = clients.message.clone();
    let outcomes = match lead.instrument(client.append(grpc::request(AppendRequest { events }, call))).await {
        Ok(response) => {
            response.into_inner().outcomes.into_iter().map(|outcome| sent(outcome, &clients.deleted)).collect()
        }
        Err(status) => vec![Err(Error::from(status)); batch.len()],
    };
    answer(batch, outcomes)
}

/// Answers the sends. Returns those that were rejected with `unavailable`, except those that a later event of their line
/// has overtaken: a repeat would reverse the order.
fn answer(batch: Vec<Job>, outcomes: Vec<Result<Sent>>) -> Vec<Job> {
    let (mut rejected, mut stored) = (Vec::new(), HashSet::new());
    for (job, outcome) in batch.into_iter().zip(outcomes).rev() {
        match outcome {
            Err(error) if error.code == Code::Unavailable && !stored.contains(&job.line) => rejected.push(job),
            outcome => {
                if may_be_stored(&outcome) {
                    stored.insert(job.line);
                }
                let _ = job.answer.send(outcome);
            }
        }
    }
    rejected.reverse();
    rejected
}

fn may_be_stored(outcome: &Result<Sent>) -> bool {
    outcome.as_ref().err().is_none_or(|error| matches!(error.code, Code::Timeout | Code::Internal))
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
            code => Err(Error::new(code, refusal.detail)),
        },
        None => Err(Error::internal("an append without an outcome")),
    }
}

//! One lane: appends the queued sends, batch after batch, and repeats those that the message service rejects with
//! `unavailable`, or whose credentials it rejects.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use confab_common::grpc::{self, Call, Uncertain};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_identity::credential::{self, Credential, message_credential};
use confab_identity::deleted::DeletedUsers;
use confab_proto::message::v1::{AppendRequest, Event, NewEvent, Outcome, Refusal, outcome};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::held::Held;
use super::job::{BATCH, Batch, Job, Sent};
use crate::clients::Clients;
use crate::metrics::METRICS;

/// How long a replica may take before the append also goes to another one.
pub const ATTEMPT: Duration = Duration::from_secs(1);
/// How the message service begins the reason of a refusal that lasts until an upgrade of the log is finished.
const UPGRADING: &str = "the log is being upgraded";
/// When a client may repeat such an event.
const AFTER_UPGRADE: Duration = Duration::from_secs(30);

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
        let mut freed = held.put_back(rejected, due);
        freed.append(&mut jobs);
        jobs = freed;
    }
}

/// Appends sends and answers them. Returns the sends that can be repeated, in the order of their lines.
///
/// The lane waits until the sends whose credentials the service does not know have been sent again, so that no later
/// event of their rooms overtakes them.
pub async fn append(lane: u32, batch: Vec<Job>, clients: &Clients) -> Vec<Job> {
    let (mut rejected, unknown) = append_once(lane, batch, &[], clients).await;
    let lines: HashSet<_> = rejected.iter().map(|job| job.line).collect();
    // Later sends of a line wait behind its rejected one.
    let (behind, unknown) = unknown.into_iter().partition::<Vec<_>, _>(|job| lines.contains(&job.line));
    rejected.extend(behind);
    if !unknown.is_empty() {
        // An event without a credential may wait behind one whose credential is not known.
        let given = unknown.iter().map(|job| &job.credential).filter(|credential| credential.digest().is_some());
        let mut credentials = given.cloned().collect::<Vec<_>>();
        credentials.sort_unstable_by_key(Credential::digest);
        credentials.dedup_by_key(|credential| credential.digest());
        let (again, unknown) = append_once(lane, unknown, &credentials, clients).await;
        rejected.extend(again);
        // The service tries no event after these ones in the same room, so they are the last of their lines.
        rejected.extend(unknown);
    }
    rejected
}

/// Sends a batch with these credentials and answers its jobs. Returns the jobs that can be repeated, and those that the
/// service has not tried because it does not know a credential.
async fn append_once(
    lane: u32,
    mut batch: Vec<Job>,
    credentials: &[Credential],
    clients: &Clients,
) -> (Vec<Job>, Vec<Job>) {
    let now = Instant::now();
    // The sender of an expired job has already received `timeout`. The job is dropped, because the sender may already
    // have repeated the message or sent newer ones.
    batch.retain(|job| job.is_expected(now));
    let Some(longest) = batch.iter().map(|job| job.deadline - now).max() else { return Default::default() };
    let event = |job: &Job| NewEvent {
        // 0 would mean the service's default, which is longer.
        timeout_ms: (job.deadline - now).as_millis().max(1) as u32,
        traceparent: job.span.traceparent(),
        ..job.event.clone()
    };
    let events: Vec<_> = batch.iter().map(event).collect();
    METRICS.send_batch.record(events.len() as f64);
    // One call carries events of several traces: its span belongs to the first trace.
    let none = Span::default();
    let lead = batch.iter().map(|job| &job.span).find(|span| !span.is_none()).unwrap_or(&none);
    // After a refusal, another key may lead to a replica with newer keys of the credential's issuer.
    let refusals = batch.iter().map(|job| job.refusals).max().unwrap_or_default();
    let call = Call::within(longest).attempt(ATTEMPT).keyed(u64::from(lane) | (u64::from(refusals) << 32));
    let request = AppendRequest { events, credentials: credentials.iter().map(message_credential).collect() };
    let mut client = clients.message.clone();
    match lead.instrument(client.append(grpc::request(request, call))).await {
        Ok(response) => {
            if response.extensions().get::<Uncertain>().is_some() {
                batch.iter_mut().for_each(|job| job.is_uncertain = true);
            }
            let outcomes = batch.into_iter().zip(response.into_inner().outcomes);
            let (unknown, tried) = outcomes.partition::<Vec<_>, _>(|(_, outcome)| is_unknown(outcome));
            let tried = tried.into_iter().map(|(job, outcome)| (job, sent(outcome, &clients.deleted)));
            (answer(tried.collect()), unknown.into_iter().map(|(job, _)| job).collect())
        }
        Err(status) => {
            let error = Error::from(status);
            (answer(batch.into_iter().map(|job| (job, Err(error.clone()))).collect()), Vec::new())
        }
    }
}

/// Answers the sends. Returns those that can be repeated, except those that a later event of their line has overtaken: a
/// repeat would reverse the order.
fn answer(outcomes: Vec<(Job, Result<Sent>)>) -> Vec<Job> {
    let (mut rejected, mut stored) = (Vec::new(), HashSet::new());
    for (mut job, outcome) in outcomes.into_iter().rev() {
        match outcome {
            Err(error) if can_be_repeated(&error) => {
                job.refusals += u32::from(error.code == Code::Unauthorized);
                if stored.contains(&job.line) {
                    job.refuse();
                } else {
                    rejected.push(job);
                }
            }
            Err(error) if error.code == Code::Unavailable => job.refuse_with(error),
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

/// Whether a rejected event is repeated before its deadline: not if it must wait for an upgrade.
fn can_be_repeated(error: &Error) -> bool {
    match error.code {
        Code::Unavailable => error.retry_after.is_none_or(|time| time < AFTER_UPGRADE),
        Code::Unauthorized => true,
        _ => false,
    }
}

fn may_be_stored(outcome: &Result<Sent>) -> bool {
    outcome.as_ref().err().is_none_or(|error| matches!(error.code, Code::Timeout | Code::Internal))
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(&outcome.result, Some(outcome::Result::Refusal(refusal)) if refusal.code == credential::UNKNOWN)
}

/// The message of an outcome.
///
/// # Errors
/// The reason of a refusal.
pub fn sent(outcome: Outcome, deleted: &DeletedUsers) -> Result<Sent> {
    let mut message = match outcome.result {
        Some(outcome::Result::Event(Event { change: Some(change), .. })) => {
            *change.message.ok_or_else(|| Error::internal("a change without its message"))?
        }
        Some(outcome::Result::Event(message) | outcome::Result::Unchanged(message)) => message,
        Some(outcome::Result::Refusal(refusal)) => return Err(refused(refusal)),
        None => return Err(Error::internal("an append without an outcome")),
    };
    // A repeated message may have files of other users.
    deleted.hide_in_events(std::slice::from_mut(&mut message));
    Ok(Sent { message, duplicate: outcome.duplicate })
}

fn refused(refusal: Refusal) -> Error {
    match Code::parse(&refusal.code).unwrap_or(Code::Internal) {
        Code::Unavailable if refusal.detail.starts_with(UPGRADING) => {
            Error::new(Code::Unavailable, refusal.detail).retry_in(AFTER_UPGRADE)
        }
        Code::Unavailable => Error::unavailable("the message service"),
        code => Error::new(code, refusal.detail),
    }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::{Change, Op};

    use super::*;

    fn refused(code: &str, detail: &str) -> Error {
        let refusal = Refusal { code: code.into(), detail: detail.into() };
        sent(outcome(outcome::Result::Refusal(refusal)), &DeletedUsers::default()).unwrap_err()
    }

    fn outcome(result: outcome::Result) -> Outcome {
        Outcome { result: Some(result), duplicate: false }
    }

    #[test]
    fn an_event_that_needs_an_upgrade_is_not_repeated() {
        let upgrading = refused("unavailable", "the log is being upgraded; finish it");
        assert_eq!((upgrading.code, upgrading.retry_after), (Code::Unavailable, Some(AFTER_UPGRADE)));
        assert!(!can_be_repeated(&upgrading));
        for (code, is_repeated) in [("unavailable", true), ("unauthorized", true), ("forbidden", false)] {
            assert_eq!(can_be_repeated(&refused(code, "not now")), is_repeated, "{code}");
        }
    }

    #[test]
    fn the_outcome_of_a_change_is_its_message() {
        let message = Event { seq: 5, ..Event::default() };
        let of = |result| sent(outcome(result), &DeletedUsers::default()).map(|sent| sent.message.seq);
        let change = |message| {
            let change = Change { target: 5, op: Op::Pin.into(), message, reactions: Vec::new(), after: Vec::new() };
            outcome::Result::Event(Event { seq: 8, change: Some(Box::new(change)), ..Event::default() })
        };
        assert_eq!(of(change(Some(Box::new(message.clone())))).unwrap(), 5);
        assert_eq!(of(outcome::Result::Unchanged(message)).unwrap(), 5);
        assert_eq!(of(change(None)).unwrap_err().code, Code::Internal);
    }
}

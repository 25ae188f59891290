//! Appends one batch to the store despite errors: merges repeats, retries after unknown outcomes, and isolates invalid
//! events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::metrics::METRICS;
use crate::store::{AppendError, Appended, EventData, Op, Outcome, Store};

/// Pauses before a batch with an unknown outcome is sent again.
const PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

/// The outcome of an event, and the epoch that it belongs to.
pub type Answer = Result<(Uuid, Outcome)>;

/// Appends events in their order and answers each. `until` is when the last of their callers stops waiting. An event
/// without an answer was not appended, because a head is locked: the head of its own partition or of another partition
/// in the batch. No event is appended after one of its room that failed, unless that one cannot be stored.
pub async fn append(store: &dyn Store, batch: &[Arc<EventData>], until: Instant) -> Vec<Option<Answer>> {
    let first_of = first_of_each_identity(batch);
    let mut answers: Vec<Option<Answer>> = vec![None; batch.len()];
    let mut parts = parts(batch, &first_of);
    let mut stopped = HashSet::new();
    while let Some(mut part) = parts.pop() {
        part.retain(|i| {
            let is_behind = stopped.contains(&batch[*i].room);
            if is_behind {
                answers[*i] = Some(Err(Error::unavailable("the log")));
            }
            !is_behind
        });
        if part.is_empty() {
            continue;
        }
        let chosen: Vec<_> = part.iter().map(|i| batch[*i].clone()).collect();
        let outcome = if Instant::now() < until {
            append_whole(store, &chosen, until).await
        } else {
            Err(Error::unavailable("the log").into())
        };
        let error = match outcome {
            Ok(Appended { epoch, outcomes }) => {
                part.into_iter().zip(outcomes).for_each(|(i, outcome)| answers[i] = Some(Ok((epoch, outcome))));
                continue;
            }
            Err(AppendError::Locked) => {
                METRICS.locked.increment(1);
                // The remaining events are not appended either: no event may overtake an earlier one.
                break;
            }
            Err(AppendError::Failed(error)) if error.code == Code::Internal && part.len() > 1 => {
                let (front, back) = part.split_at(part.len() / 2);
                parts.extend([back.to_vec(), front.to_vec()]);
                continue;
            }
            Err(AppendError::Failed(error)) => error,
        };
        if error.code != Code::Internal {
            stopped.extend(part.iter().map(|i| batch[*i].room));
        }
        part.into_iter().for_each(|i| answers[i] = Some(Err(error.clone())));
    }
    (0..batch.len())
        .map(|i| match &answers[first_of[i]] {
            Some(Ok((epoch, Outcome::Appended(event)))) if first_of[i] != i => {
                Some(Ok((*epoch, Outcome::Repeated(event.clone()))))
            }
            answer => answer.clone(),
        })
        .collect()
}

/// Returns the indices of the events to append, without repeats, in parts with the last part first. The events of a
/// room keep their order. A part has changes of messages or other events, never both, so that each is one statement: a
/// change of a message in the same batch is judged by a later transaction. So are the events of a room after an
/// access event, because its change holds for them, and an event whose identity names another act in the part.
/// Reactions are the last part, because other events may overtake them.
fn parts(batch: &[Arc<EventData>], first_of: &[usize]) -> Vec<Vec<usize>> {
    // Parts with an odd number have changes.
    let mut parts = Vec::<Vec<usize>>::new();
    let mut next_of_room = HashMap::new();
    let mut named = HashMap::new();
    let is_reaction = |i: &usize| batch[*i].change.is_some_and(|change| change.op == Op::React);
    for i in (0..batch.len()).filter(|i| first_of[*i] == *i && !is_reaction(i)) {
        let data = &batch[i];
        let next = next_of_room.entry(data.room).or_insert(0);
        let mut part = *next + (*next + usize::from(data.change.is_some())) % 2;
        let identity = (data.room, data.sender, data.client_id.as_str());
        if named.insert(identity, part) == Some(part) {
            part += 2;
            named.insert(identity, part);
        }
        *next = part + if data.body.access.is_some() { 2 } else { 0 };
        if parts.len() <= part {
            parts.resize(part + 1, Vec::new());
        }
        parts[part].push(i);
    }
    parts.push((0..batch.len()).filter(|i| first_of[*i] == *i && is_reaction(i)).collect());
    parts.reverse();
    parts
}

/// Returns for each event the index of the first event with the same identity: its own index, unless it is a repeat. An
/// event with the identity of another act is no repeat.
fn first_of_each_identity(batch: &[Arc<EventData>]) -> Vec<usize> {
    let mut seen = HashMap::with_capacity(batch.len());
    let acts = batch.iter().map(|data| {
        let act = data.change.map(|change| (change.target, change.op as u8));
        (data.room, data.sender, data.client_id.as_str(), act)
    });
    acts.enumerate().map(|(i, act)| *seen.entry(act).or_insert(i)).collect()
}

/// Repeats a batch while its outcome is unknown; the events' identities make this safe.
async fn append_whole(store: &dyn Store, batch: &[Arc<EventData>], until: Instant) -> Result<Appended, AppendError> {
    let mut unknown = false;
    let mut pauses = PAUSES.into_iter();
    loop {
        match store.append(batch, now_ms()).await {
            Err(AppendError::Failed(error)) if error.code == Code::Timeout => unknown = true,
            // This attempt appended nothing, but the attempt before may have.
            Err(AppendError::Locked) if unknown => {}
            Err(AppendError::Failed(error)) if unknown && error.code == Code::Unavailable => {}
            outcome => return outcome,
        }
        match pauses.next() {
            Some(pause) if Instant::now() + pause < until => sleep(pause).await,
            _ => return Err(Error::timeout().into()),
        }
        METRICS.resent.increment(1);
    }
}

//! Clients written like an application: senders retry with the same `clientMessageId` until acknowledged; receivers
//! return with `after` and `epoch`.

pub mod acts;
pub mod bystander;
pub mod editor;
pub mod guest;
pub mod hostile;
pub mod leaver;
pub mod listener;
pub mod moderator;
pub mod reactor;
pub mod reader;
pub mod sender;
pub mod stock;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::access::Change;
use super::history::{At, Entry, Outcome};
use super::message::{Delivered, Seen};
use super::world::World;
use crate::api::{Account, Answer};

/// How long a client waits for an answer before it switches to the next gateway.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// How long a client waits before it retries.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a client waits before it tries to join a room that is hidden from it. A gateway that fails to evict a
/// removed member delivers events meanwhile.
pub const HIDDEN_PAUSE: Duration = Duration::from_millis(500);

/// The state of a room at a receiver.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// All events above the first number up to the second, in this epoch.
    upto: Option<(u64, u64, String)>,
}

impl Holding {
    /// Returns the argument of a `joinRoom` that requests the missing messages and changes, and the pending join.
    pub fn join(&self, room: Uuid, begun: At) -> (Value, Join) {
        match &self.upto {
            None => (json!({"roomId": room}), Join { room, after: None, from: 0, begun }),
            Some((base, seq, epoch)) => {
                let from = base + 1;
                let argument = json!({"roomId": room, "after": seq, "from": from, "epoch": epoch});
                (argument, Join { room, after: Some(*seq), from, begun })
            }
        }
    }

    /// Records an acknowledgement of `joinRoom`, and reads what it omits by REST. Returns `false` when the room is hidden
    /// from the client.
    ///
    /// # Errors
    /// When the join was rejected for another reason.
    pub async fn joined(&mut self, world: &World, receiver: usize, join: &Join, ack: &Value) -> anyhow::Result<bool> {
        // The pages by REST may take longer than the session lasts.
        let at = world.recorder.now();
        let refusal = (ack["ok"] != true).then(|| refused(&ack["error"]));
        world.recorder.asked(receiver, join.begun, refusal.clone().unwrap_or(Outcome::Done));
        match refusal {
            Some(outcome) if outcome.is_hidden() => return Ok(false),
            Some(outcome) => anyhow::bail!("joinRoom: {outcome:?}"),
            None => {}
        }
        let last_seq = ack["lastSeq"].as_u64().context("lastSeq")?;
        let epoch = ack["epoch"].as_str().context("epoch")?.to_owned();
        let reset = ack["reset"] == true;
        let (messages, changed) = match join.after {
            // A client that must discard its messages starts like a new client.
            Some(after) if !reset => {
                (missed(world, join.room, after, ack).await?, changed(world, join, after, ack).await?)
            }
            _ => Default::default(),
        };
        let base = self.upto.take().filter(|_| !reset).map_or(last_seq, |(base, ..)| base);
        self.upto = Some((base, last_seq, epoch));
        let Join { room, after, from, .. } = *join;
        let joined = Entry::Joined { room, after, from, last_seq, reset, messages, changed };
        world.recorder.happened_at(at, receiver, joined);
        Ok(true)
    }
}

/// Records a live event at a receiver. Returns the room of an event of a room's log.
pub fn receive(world: &World, receiver: usize, rooms: &mut HashMap<Uuid, Holding>, event: &Value) -> Option<Uuid> {
    let Delivered { event, message, partial } = Delivered::of(event)?;
    world.recorder.happened(receiver, Entry::Live(event));
    if let Some(message) = message {
        world.recorder.happened(receiver, Entry::Changed(message));
    }
    if let Some(partial) = partial {
        world.recorder.happened(receiver, Entry::Partial(partial));
    }
    if let Some((_, upto, _)) = &mut rooms.entry(event.room).or_default().upto {
        *upto = (*upto).max(event.seq);
    }
    Some(event.room)
}

/// A pending `joinRoom`.
#[derive(Debug, Clone)]
pub struct Join {
    pub room: Uuid,
    /// The `after` of the request.
    pub after: Option<u64>,
    /// The `from` of the request.
    pub from: u64,
    /// When it was emitted.
    pub begun: At,
}

/// Returns the messages in an acknowledged `joinRoom` with `after`, and the messages that it leaves to be read by REST.
///
/// # Errors
/// When an answer has no messages.
async fn missed(world: &World, room: Uuid, after: u64, ack: &Value) -> anyhow::Result<Vec<Seen>> {
    let mut messages = seen(&ack["messages"])?;
    if ack["complete"] == true {
        return Ok(messages);
    }
    let last_seq = ack["lastSeq"].as_u64().context("lastSeq")?;
    let after = messages.last().map_or(after, |seen| seen.seq);
    let pages = pages(world, &format!("/api/messages/{room}?limit=200"), &format!("after={after}")).await?;
    messages.extend(pages.iter().filter(|seen| seen.seq <= last_seq));
    Ok(messages)
}

/// Returns the changed messages in such an acknowledgement, and those that it leaves to be read by REST.
///
/// # Errors
/// When an answer has no messages.
async fn changed(world: &World, join: &Join, after: u64, ack: &Value) -> anyhow::Result<Vec<Seen>> {
    let mut changed = seen(&ack["changed"])?;
    if ack["changedComplete"] == true {
        return Ok(changed);
    }
    let above = changed.last().and_then(|seen| seen.state).map_or(after, |state| state.revision);
    let path = format!("/api/rooms/{}/changes?limit=200", join.room);
    changed.extend(pages(world, &path, &format!("after={above}&from={}&upTo={after}", join.from)).await?);
    Ok(changed)
}

fn seen(messages: &Value) -> anyhow::Result<Vec<Seen>> {
    let messages = messages.as_array().context("a list of messages")?.iter();
    messages.map(Seen::of).collect::<Option<_>>().context("a message")
}

/// Reads all pages of a list, and retries each until it succeeds. `first` are the parameters of the first page.
async fn pages(world: &World, path: &str, first: &str) -> anyhow::Result<Vec<Seen>> {
    let (mut all, mut parameters) = (Vec::new(), first.to_owned());
    loop {
        let page = page(world, &format!("{path}&{parameters}")).await;
        all.extend(seen(&page["items"])?);
        match page["nextCursor"].as_str() {
            Some(cursor) => parameters = format!("cursor={cursor}"),
            None => return Ok(all),
        }
    }
}

/// Reads a page, and retries until it succeeds.
async fn page(world: &World, path: &str) -> Value {
    loop {
        let begun = world.recorder.now();
        let answer = timeout(ANSWER_LIMIT, world.api.get(path, &world.owner)).await;
        if let Ok(Ok(answer)) = &answer
            && answer.status == 200
        {
            return answer.body.clone();
        }
        world.recorder.called("a page of history", begun, rest_outcome(answer.ok()));
        sleep(RETRY_PAUSE).await;
    }
}

/// Returns the outcome of a REST request; `None` means no answer in time.
pub fn rest_outcome(answer: Option<anyhow::Result<Answer>>) -> Outcome {
    match answer {
        None => Outcome::Silent,
        Some(Err(_)) => Outcome::Broken,
        Some(Ok(mut answer)) if answer.status < 300 => {
            // `duplicate` is a property of the request, not of the message.
            answer.body.as_object_mut().and_then(|body| body.remove("duplicate"));
            Seen::of(&answer.body).map_or(Outcome::Done, Outcome::Acked)
        }
        Some(Ok(answer)) => refused(&answer.body),
    }
}

/// Returns the outcome of an emit.
pub fn ack_outcome(ack: &Value) -> Outcome {
    match Seen::of(&ack["message"]) {
        Some(seen) if ack["ok"] == true => Outcome::Acked(seen),
        // The Python client itself returns this when it has no connection.
        _ if ack["error"]["code"] == "disconnected" => Outcome::Broken,
        _ => refused(&ack["error"]),
    }
}

fn refused(error: &Value) -> Outcome {
    Outcome::Refused(error["status"].as_u64().unwrap_or_default(), error["code"].as_str().unwrap_or_default().into())
}

/// Whether an event takes this user's clients out of its room. Only members of private rooms are removed in a run.
pub fn takes_out(event: &Value, user: Uuid) -> bool {
    Change::of(event) == Some(Change::Left { user })
}

/// Parses the id of an account.
///
/// # Errors
/// When the id is malformed.
pub fn id(account: &Account) -> anyhow::Result<Uuid> {
    Ok(Uuid::try_parse(&account.id)?)
}

//! Clients written like an application: senders retry with the same `clientMessageId` until acknowledged; receivers
//! return with `after` and `epoch`.

pub mod acts;
pub mod bystander;
pub mod guest;
pub mod hostile;
pub mod leaver;
pub mod listener;
pub mod moderator;
pub mod sender;
pub mod stock;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::access::Change;
use super::history::{At, Entry, Outcome, Seen};
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
    /// All messages up to this number, in this epoch.
    upto: Option<(u64, String)>,
}

impl Holding {
    /// Returns the argument of a `joinRoom` that requests the missing messages, and the pending join.
    pub fn join(&self, room: Uuid, begun: At) -> (Value, Join) {
        match &self.upto {
            None => (json!({"roomId": room}), Join { room, after: None, begun }),
            Some((seq, epoch)) => {
                (json!({"roomId": room, "after": seq, "epoch": epoch}), Join { room, after: Some(*seq), begun })
            }
        }
    }

    /// Records a live event.
    pub fn receive(&mut self, seen: &Seen) {
        if let Some((upto, _)) = &mut self.upto {
            *upto = (*upto).max(seen.seq);
        }
    }

    /// Records an acknowledgement of `joinRoom`, and reads the messages that it omits by REST. Returns `false` when the
    /// room is hidden from the client.
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
        let messages = match join.after {
            // A client that must discard its messages starts like a new client.
            Some(after) if !reset => missed(world, join.room, after, ack).await?,
            _ => Vec::new(),
        };
        self.upto = Some((last_seq, epoch));
        world.recorder.happened_at(
            at,
            receiver,
            Entry::Joined { room: join.room, after: join.after, last_seq, reset, messages },
        );
        Ok(true)
    }
}

/// A pending `joinRoom`.
#[derive(Debug, Clone)]
pub struct Join {
    pub room: Uuid,
    /// The `after` of the request.
    pub after: Option<u64>,
    /// When it was emitted.
    pub begun: At,
}

/// Returns the messages in an acknowledged `joinRoom` with `after`, and the messages that it leaves to be read by REST.
///
/// # Errors
/// When the pages end before the acknowledged head.
async fn missed(world: &World, room: Uuid, after: u64, ack: &Value) -> anyhow::Result<Vec<Seen>> {
    let mut messages = ack["messages"].as_array().context("messages")?.iter().filter_map(Seen::of).collect::<Vec<_>>();
    if ack["complete"] == true {
        return Ok(messages);
    }
    let last_seq = ack["lastSeq"].as_u64().context("lastSeq")?;
    let mut upto = messages.last().map_or(after, |seen| seen.seq);
    while upto < last_seq {
        let page = page(world, room, upto).await;
        anyhow::ensure!(!page.is_empty(), "room {room} ends at {upto}, before {last_seq}");
        messages.extend(page.iter().filter(|seen| seen.seq <= last_seq));
        upto = page.last().map_or(upto, |seen| seen.seq);
    }
    Ok(messages)
}

/// Reads a page of history above a number, retrying until it succeeds.
async fn page(world: &World, room: Uuid, after: u64) -> Vec<Seen> {
    let path = format!("/api/messages/{room}?after={after}&limit=200");
    loop {
        let begun = world.recorder.now();
        let answer = timeout(ANSWER_LIMIT, world.api.get(&path, &world.owner)).await;
        if let Ok(Ok(answer)) = &answer
            && let Some(items) = answer.body["items"].as_array()
        {
            return items.iter().filter_map(Seen::of).collect();
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

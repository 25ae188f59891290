//! Clients as an application would write them: senders that try again with the same `clientMessageId` until acknowledged,
//! receivers that come back with `after` and `epoch`.

pub mod bystander;
pub mod hostile;
pub mod listener;
pub mod sender;
pub mod stock;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::history::{At, Entry, Outcome, Seen};
use super::world::World;
use crate::api::{Account, Answer};

/// How long a client waits for an answer before it turns elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// How long it waits before it tries again.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A room as a receiver has it.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// Everything up to this number, in this epoch.
    upto: Option<(u64, String)>,
}

impl Holding {
    /// The argument of a `joinRoom` that asks for the rest, and what is to be remembered of it.
    pub fn join(&self, room: Uuid, begun: At) -> (Value, Join) {
        match &self.upto {
            None => (json!({"roomId": room}), Join { room, after: None, begun }),
            Some((seq, epoch)) => (json!({"roomId": room, "after": seq, "epoch": epoch}), Join { room, after: Some(*seq), begun }),
        }
    }

    /// Takes a live event.
    pub fn hear(&mut self, seen: &Seen) {
        if let Some((upto, _)) = &mut self.upto {
            *upto = (*upto).max(seen.seq);
        }
    }

    /// Takes an acknowledgement of `joinRoom`, pages what it leaves out by REST, and writes it down.
    ///
    /// # Errors
    /// When joining is refused.
    pub async fn joined(&mut self, world: &World, receiver: usize, join: &Join, ack: &Value) -> anyhow::Result<()> {
        let refusal = (ack["ok"] != true).then(|| refused(&ack["error"]));
        world.recorder.called("joinRoom", join.begun, refusal.clone().unwrap_or(Outcome::Done));
        if let Some(outcome) = refusal {
            anyhow::bail!("joinRoom: {outcome:?}");
        }
        let last_seq = ack["lastSeq"].as_u64().context("lastSeq")?;
        let epoch = ack["epoch"].as_str().context("epoch")?.to_owned();
        let reset = ack["reset"] == true;
        let messages = match join.after {
            // Who has to forget begins like somebody new.
            Some(after) if !reset => missed(world, join.room, after, ack).await?,
            _ => Vec::new(),
        };
        self.upto = Some((last_seq, epoch));
        world.recorder.happened(receiver, Entry::Joined { room: join.room, after: join.after, last_seq, reset, messages });
        Ok(())
    }
}

/// A `joinRoom` on its way.
#[derive(Debug, Clone)]
pub struct Join {
    /// Which room.
    pub room: Uuid,
    /// What it says of `after`.
    pub after: Option<u64>,
    /// When it was emitted.
    pub begun: At,
}

/// What an acknowledged `joinRoom` with `after` gave, and what it left to be paged by REST.
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

/// A page of history above a number, however often it takes.
async fn page(world: &World, room: Uuid, after: u64) -> Vec<Seen> {
    let path = format!("/api/messages/{room}?after={after}&limit=200");
    loop {
        let begun = world.recorder.now();
        let answer = timeout(PATIENCE, world.api.get(&path, &world.owner)).await;
        if let Ok(Ok(answer)) = &answer
            && let Some(items) = answer.body["items"].as_array()
        {
            return items.iter().filter_map(Seen::of).collect();
        }
        world.recorder.called("a page of history", begun, rest_outcome(answer.ok()));
        sleep(PAUSE).await;
    }
}

/// What came of a REST request; `None` is none in time.
pub fn rest_outcome(answer: Option<anyhow::Result<Answer>>) -> Outcome {
    match answer {
        None => Outcome::Silent,
        Some(Err(_)) => Outcome::Broken,
        Some(Ok(mut answer)) if answer.status < 300 => {
            // Said of the request, not of the message.
            answer.body.as_object_mut().and_then(|body| body.remove("duplicate"));
            Seen::of(&answer.body).map_or(Outcome::Done, Outcome::Acked)
        }
        Some(Ok(answer)) => refused(&answer.body),
    }
}

/// What came of an emit.
pub fn ack_outcome(ack: &Value) -> Outcome {
    match Seen::of(&ack["message"]) {
        Some(seen) if ack["ok"] == true => Outcome::Acked(seen),
        // What the Python client says when it has no connection.
        _ if ack["error"]["code"] == "disconnected" => Outcome::Broken,
        _ => refused(&ack["error"]),
    }
}

fn refused(error: &Value) -> Outcome {
    Outcome::Refused(error["status"].as_u64().unwrap_or_default(), error["code"].as_str().unwrap_or_default().into())
}

/// The id of an account.
///
/// # Errors
/// When it is none.
pub fn id(account: &Account) -> anyhow::Result<Uuid> {
    Ok(Uuid::try_parse(&account.id)?)
}

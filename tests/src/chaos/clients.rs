//! Clients as an application would write them: senders that try again with the same `clientMessageId` until acknowledged,
//! receivers that come back with `after` and `epoch`.

pub mod listener;
pub mod sender;
pub mod stock;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::history::{Entry, Outcome, Seen};
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
    /// The argument of `joinRoom` that asks for the rest, and what it says of `after`.
    pub fn join(&self, room: Uuid) -> (Value, Option<u64>) {
        match &self.upto {
            None => (json!({"roomId": room}), None),
            Some((seq, epoch)) => (json!({"roomId": room, "after": seq, "epoch": epoch}), Some(*seq)),
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
    pub async fn joined(&mut self, world: &World, receiver: usize, room: Uuid, after: Option<u64>, ack: &Value) -> anyhow::Result<()> {
        if ack["ok"] != true {
            let outcome = refused(&ack["error"]);
            world.recorder.called("joinRoom", world.recorder.now(), outcome.clone());
            anyhow::bail!("joinRoom: {outcome:?}");
        }
        let last_seq = ack["lastSeq"].as_u64().context("lastSeq")?;
        let epoch = ack["epoch"].as_str().context("epoch")?.to_owned();
        let reset = ack["reset"] == true;
        let mut messages = match reset {
            true => vec![],
            false => ack["messages"].as_array().context("messages")?.iter().filter_map(Seen::of).collect::<Vec<_>>(),
        };
        // Who has to forget begins like somebody new.
        if let Some(from) = after.filter(|_| !reset && ack["complete"] != true) {
            let mut upto = messages.last().map_or(from, |seen| seen.seq);
            while upto < last_seq {
                let page = page(world, room, upto).await;
                anyhow::ensure!(!page.is_empty(), "room {room} ends at {upto}, before {last_seq}");
                messages.extend(page.iter().filter(|seen| seen.seq <= last_seq));
                upto = page.last().map_or(upto, |seen| seen.seq);
            }
        }
        self.upto = Some((last_seq, epoch));
        world.recorder.happened(receiver, Entry::Joined { room, after, last_seq, reset, messages });
        Ok(())
    }
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
        Some(Ok(answer)) if answer.status < 300 => Seen::of(&answer.body).map_or(Outcome::Done, Outcome::Acked),
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

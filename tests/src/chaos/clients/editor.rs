//! Authors who change their own messages, and the owner of the rooms, who pins and deletes them.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::super::history::{Outcome, What};
use super::super::message::{Op, Seen};
use super::super::schedule::Dice;
use super::super::world::World;
use super::sender::{Letter, post};
use super::{ANSWER_LIMIT, RETRY_PAUSE, ack_outcome, id, rest_outcome};
use crate::api::{Account, unique};
use crate::raw::{Client, WebSocket};

/// The pause between two messages of an author.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum edits of a message.
const MOST_EDITS: u64 = 4;
/// One attempt in this many is made over a socket.
const SOCKET_EVERY: u64 = 3;

/// A message, and the user who changes it.
struct Act<'a> {
    message: &'a Seen,
    by: &'a Account,
    op: Op,
    text: Option<String>,
}

/// Sends one message after another to the public rooms, and changes each, until the run ends.
///
/// # Errors
/// When the account is invalid.
pub async fn edit(world: Arc<World>, account: Account, mut dice: Dice) -> anyhow::Result<()> {
    let author = id(&account)?;
    while !world.is_ending() {
        // The database is not restored meanwhile, so the message stays and keeps its number.
        let acting = world.acting.read().await;
        let letter = Letter::new(&world, author, &world.rooms, &mut dice);
        let message = loop {
            match post(&world, &account, &letter).await {
                Outcome::Acked(message) => break message,
                _ => sleep(RETRY_PAUSE).await,
            }
        };
        for (by, op) in plan(&mut dice) {
            let by = if by { &world.owner } else { &account };
            // An edit to the present text would append nothing.
            let text = || format!("{} {}", unique("edited"), "y".repeat(dice.below(200) as usize));
            let text = (op == Op::Edit).then(text);
            change(&world, Act { message: &message, by, op, text }, &mut dice).await?;
        }
        drop(acting);
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Chooses changes of one message, of which each has an effect. The flag: whether the owner of the room makes it.
fn plan(dice: &mut Dice) -> Vec<(bool, Op)> {
    let mut acts = Vec::new();
    let edits = dice.below(MOST_EDITS + 1);
    acts.extend((0..edits).map(|_| (false, Op::Edit)));
    if dice.below(3) == 0 {
        acts.push((true, Op::Pin));
        acts.extend((0..dice.below(2)).map(|_| (false, Op::Edit)));
        // Most pins end, because a room has a limited number of them.
        acts.extend((dice.below(8) > 0).then_some((true, Op::Unpin)));
    }
    acts.extend((dice.below(2) == 0).then(|| (dice.below(2) == 0, Op::Delete)));
    acts
}

/// Makes a change, with the same id until it is acknowledged.
async fn change(world: &World, act: Act<'_>, dice: &mut Dice) -> anyhow::Result<()> {
    let Act { message, by, op, text } = act;
    let Seen { room, seq, id: message_id, .. } = *message;
    let key = unique("act");
    let what = What::Message { room, target: seq, by: id(by)?, op, text: text.clone() };
    let number = world.recorder.acting(what);
    loop {
        let begun = world.recorder.now();
        let socket = (dice.below(SOCKET_EVERY) == 0).then(|| (world.next_socket(), 0));
        let outcome = match socket {
            Some((socket, _)) => {
                let (event, mut payload) = match op {
                    Op::Edit => ("edit", json!({"content": text, "clientMessageId": key})),
                    Op::Delete => ("remove", json!({"clientMessageId": key})),
                    Op::Pin | Op::Unpin | Op::React => ("pin", json!({"on": op == Op::Pin})),
                };
                payload["roomId"] = json!(room);
                payload["seq"] = json!(seq);
                payload["id"] = json!(message_id);
                let answer = timeout(ANSWER_LIMIT, emit(world, by, socket as usize, event, payload)).await;
                answer.map_or(Outcome::Silent, |ack| ack.map_or(Outcome::Broken, |ack| ack_outcome(&ack)))
            }
            None => {
                let path = format!("/api/rooms/{room}/messages/{seq}");
                let (method, path, body) = match op {
                    Op::Edit => (Method::PATCH, path, Some(json!({"content": text, "clientMessageId": key}))),
                    Op::Delete => (Method::DELETE, path, None),
                    Op::Pin => (Method::PUT, path + "/pin", None),
                    Op::Unpin | Op::React => (Method::DELETE, path + "/pin", None),
                };
                rest_outcome(timeout(ANSWER_LIMIT, world.api.call(method, &path, Some(by), body)).await.ok())
            }
        };
        let known = matches!(outcome, Outcome::Acked(_));
        world.recorder.acted(number, begun, socket, outcome, known);
        if known {
            return Ok(());
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Emits one event on a new socket at a gateway.
pub async fn emit(world: &World, by: &Account, gateway: usize, event: &str, payload: Value) -> anyhow::Result<Value> {
    let mut socket = WebSocket::connect(&world.gateway(gateway), &by.token).await?;
    socket.emit(event, payload).await
}

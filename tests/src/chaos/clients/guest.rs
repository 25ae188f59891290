//! Users who may lose the right to read and post in a room, and try both all the time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::Outcome;
use super::super::schedule::Dice;
use super::super::world::World;
use super::sender::{Letter, post};
use super::{ANSWER_LIMIT, RETRY_PAUSE, ack_outcome, id, rest_outcome};
use crate::api::Account;
use crate::stock::Socket;

/// The pause between two messages.
const SEND_INTERVAL: Duration = Duration::from_millis(250);
/// The pause between two requests for history.
const READ_INTERVAL: Duration = Duration::from_millis(400);

/// Sends one message after another until the run ends, through the load balancer and, with `socket`, by turns over the
/// socket that listens. A message is repeated until it is acknowledged or rejected.
///
/// # Errors
/// When the account is invalid.
pub async fn send(
    world: Arc<World>,
    account: Account,
    room: Uuid,
    socket: Option<Arc<Socket>>,
    mut dice: Dice,
) -> anyhow::Result<()> {
    let (sender, number, mut emits) = (id(&account)?, world.next_socket(), 0);
    while !world.is_ending() {
        let letter = Letter::to(&world, sender, room, true, &mut dice);
        loop {
            let outcome = match &socket {
                Some(socket) if dice.below(2) == 0 => {
                    emits += 1;
                    emit(&world, socket, (number, emits), &letter).await
                }
                _ => post(&world, &account, &letter).await,
            };
            if matches!(outcome, Outcome::Acked(_)) || outcome.is_hidden() || world.is_ending() {
                break;
            }
            sleep(RETRY_PAUSE).await;
        }
        sleep(SEND_INTERVAL).await;
    }
    Ok(())
}

/// Makes one attempt over a stock client, which reports no loss of an event with its connection.
async fn emit(world: &World, socket: &Socket, number: (u64, u64), letter: &Letter) -> Outcome {
    let begun = world.recorder.now();
    let outcome = match timeout(ANSWER_LIMIT, socket.emit_later("message", vec![letter.payload.clone()])).await {
        Ok(Ok(arguments)) => ack_outcome(arguments.first().unwrap_or(&Value::Null)),
        _ => Outcome::Broken,
    };
    world.recorder.tried(letter.number, begun, Some(number), outcome.clone());
    outcome
}

/// Requests the history of a room again and again until the run ends.
///
/// # Errors
/// When the account is invalid.
pub async fn read(world: Arc<World>, account: Account, room: Uuid) -> anyhow::Result<()> {
    let (user, path) = (id(&account)?, format!("/api/messages/{room}?limit=1"));
    while !world.is_ending() {
        let begun = world.recorder.now();
        let answer = timeout(ANSWER_LIMIT, world.api.get(&path, &account)).await;
        world.recorder.read(user, room, begun, rest_outcome(answer.ok()));
        sleep(READ_INTERVAL).await;
    }
    Ok(())
}

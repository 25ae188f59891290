//! Senders over REST and over a bare WebSocket.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::super::history::Outcome;
use super::super::schedule::Dice;
use super::super::world::World;
use super::{ANSWER_LIMIT, RETRY_PAUSE, ack_outcome, id, rest_outcome};
use crate::api::{Account, unique};
use crate::raw::{Client, WebSocket};

/// How many messages of one socket are in flight at once.
const WINDOW: usize = 4;

/// A message to send.
pub struct Letter {
    /// Its number in the records.
    pub number: usize,
    /// The payload of `message`, and of `POST /api/messages`.
    pub payload: Value,
}

impl Letter {
    /// Creates a message to one of these rooms.
    pub fn new(world: &World, sender: Uuid, rooms: &[Uuid], dice: &mut Dice) -> Self {
        let room = rooms[dice.below(rooms.len() as u64) as usize];
        Self::to(world, sender, room, false, dice)
    }

    /// Creates a message to a room. `guest`: the sender may lose the right to post in it.
    pub fn to(world: &World, sender: Uuid, room: Uuid, guest: bool, dice: &mut Dice) -> Self {
        let key = unique("chaos");
        let number = world.recorder.sending(sender, room, key.clone(), guest);
        let content = format!("number {number} {}", "x".repeat(dice.below(200) as usize));
        Self { number, payload: json!({"roomId": room, "content": content, "clientMessageId": key}) }
    }
}

/// Sends one message after another to these rooms through the load balancer, until the run ends.
///
/// # Errors
/// When the account is invalid.
pub async fn by_rest(
    world: Arc<World>,
    account: Account,
    rooms: Vec<Uuid>,
    mut dice: Dice,
    pace: Duration,
) -> anyhow::Result<()> {
    let sender = id(&account)?;
    while !world.is_ending() {
        deliver(&world, &account, &Letter::new(&world, sender, &rooms, &mut dice)).await;
        sleep(pace).await;
    }
    Ok(())
}

/// Sends a message through the load balancer until it is acknowledged.
pub async fn deliver(world: &World, account: &Account, letter: &Letter) {
    while !matches!(post(world, account, letter).await, Outcome::Acked(_)) {
        sleep(RETRY_PAUSE).await;
    }
}

/// Makes one attempt through the load balancer.
pub async fn post(world: &World, account: &Account, letter: &Letter) -> Outcome {
    let begun = world.recorder.now();
    let answer = timeout(ANSWER_LIMIT, world.api.post("/api/messages", account, letter.payload.clone())).await;
    let outcome = rest_outcome(answer.ok());
    world.recorder.tried(letter.number, begun, None, outcome.clone());
    outcome
}

/// Sends several messages at a time through one gateway after another, until the run ends.
///
/// # Errors
/// When the account is invalid.
pub async fn by_socket(world: Arc<World>, account: Account, mut dice: Dice, pace: Duration) -> anyhow::Result<()> {
    let sender = id(&account)?;
    let mut letters = Vec::new();
    let mut gateway = dice.below(2) as usize;
    loop {
        // After any error the client switches to the next gateway.
        let _ = one_socket(&world, &account, gateway, sender, &mut letters, &mut dice, pace).await;
        if letters.is_empty() && world.is_ending() {
            return Ok(());
        }
        gateway += 1;
        sleep(RETRY_PAUSE).await;
    }
}

async fn one_socket(
    world: &World,
    account: &Account,
    gateway: usize,
    sender: Uuid,
    letters: &mut Vec<Letter>,
    dice: &mut Dice,
    pace: Duration,
) -> anyhow::Result<()> {
    let mut socket = timeout(ANSWER_LIMIT, WebSocket::connect(&world.gateway(gateway), &account.token)).await??;
    let number = world.next_socket();
    while !letters.is_empty() || !world.is_ending() {
        while letters.len() < WINDOW && !world.is_ending() {
            letters.push(Letter::new(world, sender, &world.rooms, dice));
        }
        let begun = world.recorder.now();
        let deadline = Instant::now() + ANSWER_LIMIT;
        let payloads = letters.iter().map(|letter| letter.payload.clone()).collect::<Vec<_>>();
        let emits = timeout_at(deadline, socket.emit_all("message", &payloads)).await??;
        let mut failed = None;
        let mut unanswered = Vec::new();
        for (letter, emit) in letters.drain(..).zip(emits) {
            let ack = match failed.clone() {
                None => match timeout_at(deadline, socket.ack(emit)).await {
                    Ok(Ok(ack)) => Ok(ack),
                    Ok(Err(_)) => Err(Outcome::Broken),
                    Err(_) => Err(Outcome::Silent),
                },
                Some(failed) => Err(failed),
            };
            let outcome = match ack {
                Ok(ack) => ack_outcome(&ack),
                Err(outcome) => failed.insert(outcome).clone(),
            };
            world.recorder.tried(letter.number, begun, Some((number, emit)), outcome.clone());
            if !matches!(outcome, Outcome::Acked(_)) {
                unanswered.push(letter);
            }
        }
        *letters = unanswered;
        if failed.is_some() {
            break;
        }
        sleep(if letters.is_empty() { pace } else { RETRY_PAUSE }).await;
    }
    Ok(())
}

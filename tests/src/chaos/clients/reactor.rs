//! Friends who react to messages.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::history::{Outcome, What};
use super::super::message::{Seen, Toggle};
use super::super::schedule::Dice;
use super::super::world::World;
use super::editor::emit;
use super::sender::{Letter, post};
use super::{ANSWER_LIMIT, RETRY_PAUSE, id, rest_outcome};
use crate::api::Account;

/// The pause between two messages.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum rounds in which all friends react to a message at the same time.
const MOST_ROUNDS: u64 = 4;
/// One attempt in this many is made over a socket.
const SOCKET_EVERY: u64 = 3;
/// Names of reactions; each user sets one after another.
const NAMES: [&str; 3] = ["👍", "❤", "ship it"];

/// Sends one message after another to the public rooms; the friends react to each until the run ends.
///
/// # Errors
/// When an account is invalid.
pub async fn react(world: Arc<World>, friends: Vec<Account>, mut dice: Dice) -> anyhow::Result<()> {
    let users = friends.iter().map(id).collect::<anyhow::Result<Vec<_>>>()?;
    while !world.is_ending() {
        // The database is not restored meanwhile, so the message stays and keeps its number.
        let acting = world.acting.read().await;
        let letter = Letter::new(&world, users[0], &world.rooms, &mut dice);
        let message = deliver(&world, &friends[0], &letter).await;
        for _ in 0..dice.below(MOST_ROUNDS) {
            let mut toggles = JoinSet::new();
            for (friend, user) in friends.iter().zip(&users) {
                let name = NAMES[dice.below(NAMES.len() as u64) as usize].to_owned();
                let toggle = Toggle { user: *user, name, on: dice.below(3) > 0 };
                toggles.spawn(set(world.clone(), friend.clone(), message, toggle, dice.split()));
            }
            toggles.join_all().await;
        }
        drop(acting);
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Sends a message until it is acknowledged.
async fn deliver(world: &World, account: &Account, letter: &Letter) -> Seen {
    loop {
        match post(world, account, letter).await {
            Outcome::Acked(message) => return message,
            _ => sleep(RETRY_PAUSE).await,
        }
    }
}

/// Sets a reaction until the answer says that it stands.
async fn set(world: Arc<World>, account: Account, message: Seen, toggle: Toggle, mut dice: Dice) {
    let Seen { room, seq, id, .. } = message;
    let Toggle { name, on, .. } = toggle.clone();
    let act = world.recorder.acting(What::Reaction { room, target: seq, toggle });
    loop {
        let begun = world.recorder.now();
        let socket = (dice.below(SOCKET_EVERY) == 0).then(|| (world.next_socket(), 0));
        let outcome = if let Some((socket, _)) = socket {
            let payload = json!({"roomId": room, "seq": seq, "id": id, "name": name, "on": on});
            match timeout(ANSWER_LIMIT, emit(&world, &account, socket as usize, "react", payload)).await {
                Ok(Ok(ack)) if ack["ok"] == true => Outcome::Done,
                Ok(Ok(ack)) => super::ack_outcome(&ack),
                Ok(Err(_)) => Outcome::Broken,
                Err(_) => Outcome::Silent,
            }
        } else {
            let method = if on { Method::PUT } else { Method::DELETE };
            let mut url = reqwest::Url::parse("http://localhost").expect("a URL");
            let path = format!("/api/rooms/{room}/messages/{seq}/reactions");
            url.set_path(&path);
            url.path_segments_mut().expect("a path").push(&name);
            rest_outcome(timeout(ANSWER_LIMIT, world.api.call(method, url.path(), Some(&account), None)).await.ok())
        };
        let known = outcome == Outcome::Done;
        world.recorder.acted(act, begun, socket, outcome, known);
        if known {
            return;
        }
        sleep(RETRY_PAUSE).await;
    }
}

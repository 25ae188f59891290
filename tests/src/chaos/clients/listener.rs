//! A receiver over a bare WebSocket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::{Entry, Outcome};
use super::super::world::World;
use super::{ANSWER_LIMIT, HIDDEN_PAUSE, Holding, Join, RETRY_PAUSE, id, receive, takes_out};
use crate::api::Account;
use crate::raw::{Client, WebSocket};

/// Listens in the receiver's rooms, at one gateway after another, until the server ends its sign-in or the task is
/// aborted. With `stays` it uses only one gateway.
pub async fn listen(world: Arc<World>, account: Account, receiver: usize, mut gateway: usize, stays: bool) {
    let rooms = world.recorder.place_of(receiver).1;
    let mut rooms = rooms.into_iter().map(|room| (room, Holding::default())).collect::<HashMap<_, _>>();
    world.recorder.update_health(receiver, |health| health.listeners += 1);
    loop {
        let mut all_joined = false;
        // A client of a single gateway waits for messages that the gateway sends after a standstill.
        let patience = if stays { 6 * ANSWER_LIMIT } else { ANSWER_LIMIT };
        let ended = one_socket(&world, &account, receiver, gateway, &mut rooms, &mut all_joined, patience).await;
        world.recorder.happened(receiver, Entry::Closed);
        world.recorder.update_health(receiver, |health| health.listening -= usize::from(all_joined));
        if ended.is_ok() {
            return world.recorder.update_health(receiver, |health| health.listeners -= 1);
        }
        gateway += usize::from(!stays);
        sleep(RETRY_PAUSE).await;
    }
}

/// `Ok` when the server has ended the sign-in.
async fn one_socket(
    world: &World,
    account: &Account,
    receiver: usize,
    gateway: usize,
    rooms: &mut HashMap<Uuid, Holding>,
    all_joined: &mut bool,
    patience: Duration,
) -> anyhow::Result<()> {
    let url = world.gateway(gateway);
    let mut socket = timeout(ANSWER_LIMIT, WebSocket::open(&url)).await??;
    let promised = |name: &str| socket.open[name].as_u64().map(Duration::from_millis).context("the open packet");
    let silence = (promised("pingInterval")? + promised("pingTimeout")?).max(patience);
    if let Err(error) = timeout(ANSWER_LIMIT, socket.enter(&account.token)).await? {
        let refused = error.to_string().starts_with("refused");
        return if refused { Ok(()) } else { Err(error) };
    }
    world.recorder.happened(receiver, Entry::Opened);
    let user = id(account)?;
    let mut joining = Vec::new();
    join(world, &mut socket, rooms, rooms.keys().copied().collect(), &mut joining).await?;
    loop {
        let mut hidden = Vec::new();
        timeout(silence, socket.listen()).await.context("no packet within the ping interval and timeout")??;
        for (name, event) in socket.taken_events() {
            if name == "sessionEnded" {
                return Ok(());
            }
            if let Some(room) = receive(world, receiver, rooms, &event) {
                hidden.extend(takes_out(&event, user).then_some(room));
            }
        }
        let mut waiting = Vec::new();
        for (number, join) in joining.drain(..) {
            match socket.taken_ack(number) {
                Some(ack) => {
                    let joined = rooms.entry(join.room).or_default().joined(world, receiver, &join, &ack).await?;
                    hidden.extend((!joined).then_some(join.room));
                }
                None if world.recorder.now() > join.begun + patience => {
                    world.recorder.asked(receiver, join.begun, Outcome::Silent);
                    bail!("joinRoom got no answer");
                }
                None => waiting.push((number, join)),
            }
        }
        joining = waiting;
        if !hidden.is_empty() {
            sleep(HIDDEN_PAUSE).await;
            join(world, &mut socket, rooms, hidden, &mut joining).await?;
        }
        if joining.is_empty() && !*all_joined {
            *all_joined = true;
            world.recorder.update_health(receiver, |health| health.listening += 1);
        }
    }
}

/// Requests to join these rooms.
async fn join(
    world: &World,
    socket: &mut WebSocket,
    holdings: &HashMap<Uuid, Holding>,
    rooms: Vec<Uuid>,
    joining: &mut Vec<(u64, Join)>,
) -> anyhow::Result<()> {
    for room in rooms {
        let (argument, join) = holdings.get(&room).cloned().unwrap_or_default().join(room, world.recorder.now());
        joining.push((socket.emit_later("joinRoom", &argument).await?, join));
    }
    Ok(())
}

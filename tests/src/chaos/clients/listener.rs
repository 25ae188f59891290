//! A receiver over a bare WebSocket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::{Entry, Outcome, Seen};
use super::super::world::World;
use super::{ANSWER_LIMIT, Holding, RETRY_PAUSE};
use crate::api::Account;
use crate::raw::{Client, WebSocket};

/// Listens in all rooms, at one gateway after another, until the server ends its sign-in or the task is aborted. With
/// `stays` it uses only one gateway.
pub async fn listen(world: Arc<World>, account: Account, receiver: usize, mut gateway: usize, stays: bool) {
    let mut rooms = world.rooms.iter().map(|room| (*room, Holding::default())).collect::<HashMap<_, _>>();
    world.recorder.update_health(|health| health.listeners += 1);
    loop {
        let mut all_joined = false;
        // A client of a single gateway waits for messages that the gateway sends after a standstill.
        let patience = if stays { 6 * ANSWER_LIMIT } else { ANSWER_LIMIT };
        let ended = one_socket(&world, &account, receiver, gateway, &mut rooms, &mut all_joined, patience).await;
        world.recorder.happened(receiver, Entry::Closed);
        world.recorder.update_health(|health| health.listening -= usize::from(all_joined));
        if ended.is_ok() {
            return world.recorder.update_health(|health| health.listeners -= 1);
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
    let mut joining = Vec::new();
    for (room, holding) in rooms.iter() {
        let (argument, join) = holding.join(*room, world.recorder.now());
        joining.push((socket.emit_later("joinRoom", &argument).await?, join));
    }
    loop {
        timeout(silence, socket.listen()).await.context("no packet within the ping interval and timeout")??;
        for (name, event) in socket.taken_events() {
            if name == "sessionEnded" {
                return Ok(());
            }
            if let Some(seen) = Seen::of(&event) {
                world.recorder.happened(receiver, Entry::Live(seen));
                rooms.entry(seen.room).or_default().receive(&seen);
            }
        }
        let mut waiting = Vec::new();
        for (number, join) in joining.drain(..) {
            match socket.taken_ack(number) {
                Some(ack) => rooms.entry(join.room).or_default().joined(world, receiver, &join, &ack).await?,
                None if world.recorder.now() > join.begun + patience => {
                    world.recorder.called("joinRoom", join.begun, Outcome::Silent);
                    bail!("joinRoom got no answer");
                }
                None => waiting.push((number, join)),
            }
        }
        joining = waiting;
        if joining.is_empty() && !*all_joined {
            *all_joined = true;
            world.recorder.update_health(|health| health.listening += 1);
        }
    }
}

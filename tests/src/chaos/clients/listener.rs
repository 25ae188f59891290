//! A receiver over a bare WebSocket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::{Entry, Seen};
use super::super::world::World;
use super::{Holding, PATIENCE, PAUSE};
use crate::api::Account;
use crate::raw::{Client, WebSocket};

/// Listens in all rooms, at one gateway after another, until its session is ended by the server or the task aborted. With
/// `stays` it knows of one gateway alone.
pub async fn listen(world: Arc<World>, account: Account, receiver: usize, mut gateway: usize, stays: bool) {
    let mut rooms = world.rooms.iter().map(|room| (*room, Holding::default())).collect::<HashMap<_, _>>();
    world.recorder.beat(|pulse| pulse.listeners += 1);
    loop {
        let mut all_joined = false;
        let ended = one_socket(&world, &account, receiver, gateway, &mut rooms, &mut all_joined).await;
        world.recorder.happened(receiver, Entry::Closed);
        world.recorder.beat(|pulse| pulse.listening -= usize::from(all_joined));
        if ended.is_ok() {
            return world.recorder.beat(|pulse| pulse.listeners -= 1);
        }
        gateway += usize::from(!stays);
        sleep(PAUSE).await;
    }
}

/// `Ok` when the server has ended the session for good.
async fn one_socket(
    world: &World,
    account: &Account,
    receiver: usize,
    gateway: usize,
    rooms: &mut HashMap<Uuid, Holding>,
    all_joined: &mut bool,
) -> anyhow::Result<()> {
    let url = world.gateway(gateway);
    let mut socket = timeout(PATIENCE, WebSocket::open(&url)).await??;
    let patience = |name: &str| socket.open[name].as_u64().map(Duration::from_millis).context("the open packet");
    let silence = patience("pingInterval")? + patience("pingTimeout")?;
    if let Err(error) = timeout(PATIENCE, socket.enter(&account.token)).await? {
        let refused = error.to_string().starts_with("refused");
        return if refused { Ok(()) } else { Err(error) };
    }
    world.recorder.happened(receiver, Entry::Opened);
    let mut joining = Vec::new();
    for (room, holding) in rooms.iter() {
        let (argument, after) = holding.join(*room);
        joining.push((socket.emit_later("joinRoom", &argument).await?, *room, after));
    }
    loop {
        timeout(silence, socket.listen()).await.context("no sign of life")??;
        for (name, event) in socket.taken_events() {
            if name == "sessionEnded" {
                return Ok(());
            }
            if let Some(seen) = Seen::of(&event) {
                world.recorder.happened(receiver, Entry::Live(seen));
                rooms.entry(seen.room).or_default().hear(&seen);
            }
        }
        let mut waiting = Vec::new();
        for (number, room, after) in joining.drain(..) {
            match socket.taken_ack(number) {
                Some(ack) => rooms.entry(room).or_default().joined(world, receiver, room, after, &ack).await?,
                None => waiting.push((number, room, after)),
            }
        }
        joining = waiting;
        if joining.is_empty() && !*all_joined {
            *all_joined = true;
            world.recorder.beat(|pulse| pulse.listening += 1);
        }
    }
}

//! Unmodified Socket.IO clients, which reconnect on their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::super::history::{Entry, Outcome, Seen};
use super::super::schedule::Dice;
use super::super::world::World;
use super::sender::Letter;
use super::{ANSWER_LIMIT, Holding, Join, RETRY_PAUSE, ack_outcome, id};
use crate::api::Account;
use crate::stock::{Report, Socket, Stock};

/// The transports of clients that begin by polling.
pub const UPGRADE: &[&str] = &["polling", "websocket"];
/// The transports of clients that use only WebSocket.
pub const WEBSOCKET: &[&str] = &["websocket"];

/// Opens a client at the load balancer that reconnects quickly.
pub fn open(stock: &Stock, world: &World, account: &Account, transports: &[&str]) -> Socket {
    let options = json!({"auth": {"token": account.token}, "transports": transports, "reconnectionDelay": 200, "reconnectionDelayMax": 1000});
    stock.open(&world.api.url, options)
}

/// Opens a client over WebSocket that uses Socket.IO's own recovery.
pub fn open_with_recovery(stock: &Stock, world: &World, account: &Account) -> Socket {
    let auth = json!({"token": account.token, "recovery": true});
    let options =
        json!({"auth": auth, "transports": WEBSOCKET, "reconnectionDelay": 200, "reconnectionDelayMax": 1000});
    stock.open(&world.api.url, options)
}

/// Listens in all rooms until the task is aborted.
pub async fn listen(world: Arc<World>, socket: Socket, receiver: usize) {
    let mut rooms = world.rooms.iter().map(|room| (*room, Holding::default())).collect::<HashMap<_, _>>();
    let mut joining = HashMap::<u64, Join>::new();
    let mut joined = HashSet::new();
    let mut listening = false;
    world.recorder.update_health(|health| health.listeners += 1);
    loop {
        for report in socket.next_reports().await {
            let mut join = Vec::new();
            match report {
                Report::State(kind, details) if kind == "connect" && details["recovered"] == true => {
                    world.recorder.happened(receiver, Entry::Recovered);
                    joined.extend(rooms.keys().copied());
                }
                Report::State(kind, _) if kind == "connect" => {
                    world.recorder.happened(receiver, Entry::Opened);
                    joining.clear();
                    joined.clear();
                    join.extend(rooms.keys().copied());
                }
                Report::State(kind, _) if kind == "disconnect" => {
                    joined.clear();
                    world.recorder.happened(receiver, Entry::Closed);
                    world.recorder.update_health(|health| health.listening -= usize::from(listening));
                    listening = false;
                }
                // A permanent rejection: a stock client does not retry.
                Report::State(kind, details) if kind == "connect_error" && !details["data"].is_null() => {
                    let outcome = super::refused(&details["data"]);
                    world.recorder.called("CONNECT of a stock client", world.recorder.now(), outcome);
                }
                Report::Event(_, arguments) => {
                    if let Some(seen) = arguments.first().and_then(Seen::of) {
                        world.recorder.happened(receiver, Entry::Live(seen));
                        rooms.entry(seen.room).or_default().receive(&seen);
                    }
                }
                Report::Ack(number, arguments) => {
                    let Some(sent) = joining.remove(&number) else { continue };
                    let (room, ack) = (sent.room, arguments.first().unwrap_or(&Value::Null));
                    match rooms.entry(room).or_default().joined(&world, receiver, &sent, ack).await {
                        Ok(()) => _ = joined.insert(room),
                        Err(_) => {
                            sleep(RETRY_PAUSE).await;
                            join.push(room);
                        }
                    }
                }
                Report::State(..) => {}
            }
            for room in join {
                let (argument, join) = rooms[&room].join(room, world.recorder.now());
                joining.insert(socket.emit_noted("joinRoom", vec![argument]), join);
            }
            if joined.len() == rooms.len() && !listening {
                listening = true;
                world.recorder.update_health(|health| health.listening += 1);
            }
        }
    }
}

/// Sends one message after another until the run ends.
///
/// # Errors
/// When the account is invalid.
pub async fn send(
    world: Arc<World>,
    account: Account,
    socket: Socket,
    mut dice: Dice,
    pace: Duration,
) -> anyhow::Result<()> {
    let (sender, number, mut emits) = (id(&account)?, world.next_socket(), 0);
    socket.state("connect").await?;
    while !world.is_ending() {
        let letter = Letter::new(&world, sender, &mut dice);
        loop {
            let begun = world.recorder.now();
            let (connected, breaks) = state(&socket);
            let ack = timeout(ANSWER_LIMIT, socket.emit_later("message", vec![letter.payload.clone()])).await;
            let outcome = match &ack {
                Ok(Ok(arguments)) => ack_outcome(arguments.first().unwrap_or(&Value::Null)),
                // A message emitted without a connection waits for one, and the client does not report messages lost
                // with a connection.
                _ if !connected || state(&socket) != (true, breaks) => Outcome::Broken,
                _ => Outcome::Silent,
            };
            emits += 1;
            world.recorder.tried(letter.number, begun, Some((number, emits)), outcome.clone());
            if matches!(outcome, Outcome::Acked(_)) {
                break;
            }
            sleep(RETRY_PAUSE).await;
        }
        sleep(pace).await;
    }
    Ok(())
}

/// Returns whether the client is connected, and how often it was disconnected.
fn state(socket: &Socket) -> (bool, usize) {
    let reports = socket.reports();
    let count = |wanted: &str| {
        reports.iter().filter(|report| matches!(report, Report::State(kind, _) if kind == wanted)).count()
    };
    let (connects, disconnects) = (count("connect"), count("disconnect"));
    (connects > disconnects, disconnects)
}

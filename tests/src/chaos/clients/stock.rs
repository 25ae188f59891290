//! Unmodified Socket.IO clients, which reconnect on their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::history::{Entry, Outcome};
use super::super::schedule::Dice;
use super::super::world::World;
use super::sender::Letter;
use super::{ANSWER_LIMIT, HIDDEN_PAUSE, Holding, Join, RETRY_PAUSE, ack_outcome, id, receive, takes_out};
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

/// Listens in the receiver's rooms until the task is aborted.
pub async fn listen(world: Arc<World>, socket: Arc<Socket>, receiver: usize) {
    let (user, rooms) = world.recorder.place_of(receiver);
    let mut rooms = rooms.into_iter().map(|room| (room, Holding::default())).collect::<HashMap<_, _>>();
    let mut joining = HashMap::<u64, Join>::new();
    let mut joined = HashSet::new();
    let mut listening = false;
    world.recorder.update_health(receiver, |health| health.listeners += 1);
    loop {
        // Joins after a pause, and the pause.
        let (mut later, mut pause) = (Vec::new(), RETRY_PAUSE);
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
                    later.clear();
                    join.extend(rooms.keys().copied());
                }
                Report::State(kind, _) if kind == "disconnect" => {
                    joined.clear();
                    later.clear();
                    world.recorder.happened(receiver, Entry::Closed);
                    world.recorder.update_health(receiver, |health| health.listening -= usize::from(listening));
                    listening = false;
                }
                // A permanent rejection: a stock client does not retry.
                Report::State(kind, details) if kind == "connect_error" && !details["data"].is_null() => {
                    let outcome = super::refused(&details["data"]);
                    world.recorder.called("CONNECT of a stock client", world.recorder.now(), outcome);
                }
                Report::Event(_, arguments) => {
                    let event = arguments.first().unwrap_or(&Value::Null);
                    if let Some(room) = receive(&world, receiver, &mut rooms, event)
                        && takes_out(event, user)
                    {
                        later.push(room);
                        pause = HIDDEN_PAUSE;
                    }
                }
                Report::Ack(number, arguments) => {
                    let Some(sent) = joining.remove(&number) else { continue };
                    let (room, ack) = (sent.room, arguments.first().unwrap_or(&Value::Null));
                    match rooms.entry(room).or_default().joined(&world, receiver, &sent, ack).await {
                        Ok(true) => _ = joined.insert(room),
                        Ok(false) => {
                            later.push(room);
                            pause = HIDDEN_PAUSE;
                        }
                        Err(_) => later.push(room),
                    }
                }
                Report::State(..) => {}
            }
            join_all(&world, &socket, &rooms, join, &mut joining);
            if joined.len() == rooms.len() && !listening {
                listening = true;
                world.recorder.update_health(receiver, |health| health.listening += 1);
            }
        }
        if !later.is_empty() {
            sleep(pause).await;
            // A client that has lost its connection joins again when it is connected. An event that it emits before
            // then would be sent in addition.
            if !socket.reports().iter().any(is_of_connection) {
                join_all(&world, &socket, &rooms, later, &mut joining);
            }
        }
    }
}

fn is_of_connection(report: &Report) -> bool {
    matches!(report, Report::State(kind, _) if kind == "connect" || kind == "disconnect")
}

/// Requests to join these rooms.
fn join_all(
    world: &World,
    socket: &Socket,
    holdings: &HashMap<Uuid, Holding>,
    rooms: Vec<Uuid>,
    joining: &mut HashMap<u64, Join>,
) {
    for room in rooms {
        let (argument, join) = holdings[&room].join(room, world.recorder.now());
        joining.insert(socket.emit_noted("joinRoom", vec![argument]), join);
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
        let letter = Letter::new(&world, sender, &world.rooms, &mut dice);
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

//! Twenty stock clients speak real text in five rooms, and each hears exactly what history says.

use std::collections::HashMap;
use std::time::Duration;

use confab_tests::api::{Account, Api, unique};
use confab_tests::plan::Role;
use confab_tests::stock::{Report, Socket, Stock, Transports};
use confab_tests::{wait::eventually, words};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world;

const CLIENTS: usize = 20;
const ROOMS: usize = 5;
const LINES: usize = 5000;
/// How many sends of one client wait for their acknowledgement at once.
const WINDOW: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_cluster() {
    let cluster = world::cluster().await;
    let gateways = world::gateways(cluster).into_iter().map(|api| api.url).collect::<Vec<_>>();
    converse(&gateways, &cluster.plan.url((Role::Lb, 1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let url = world::embedded().await.url();
    converse(std::slice::from_ref(&url), &url).await.unwrap();
}

/// Those that begin by polling go to one gateway each, the others to the balancer.
async fn converse(gateways: &[String], balancer: &str) -> anyhow::Result<()> {
    let api = Api::new(balancer);
    let accounts = signups(&api).await?;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(api.room(&accounts[0]).await?);
    }
    let sockets = connect(gateways, balancer, &accounts).await?;
    for (n, socket) in sockets.iter().enumerate() {
        for room in rooms_of(n) {
            let ack = socket.emit("joinRoom", json!(rooms[room])).await?;
            anyhow::ensure!(ack["ok"] == true && ack["lastSeq"] == 0, "joinRoom: {ack}");
        }
    }

    let lines = words::lines(LINES)?;
    let mut speaking = JoinSet::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        // Each speaks in its rooms in turn.
        let own = lines.iter().skip(n).step_by(CLIENTS).cloned();
        let own = own.zip(rooms_of(n).into_iter().map(|room| rooms[room].clone()).collect::<Vec<_>>().into_iter().cycle());
        let own = own.collect::<Vec<_>>();
        speaking.spawn(async move {
            let in_order = speak(&socket, &own).await?;
            anyhow::Ok((n, socket, own, in_order))
        });
    }
    let mut sockets = Vec::new();
    while let Some(spoken) = speaking.join_next().await {
        sockets.push(spoken??);
    }

    // What comes twice may come late, but not after a last message.
    let mut histories = HashMap::new();
    for room in &rooms {
        api.post("/api/messages", &accounts[0], json!({"roomId": room, "content": "the end"})).await?.expect(201)?;
        histories.insert(room.clone(), api.history(room, &accounts[0], 200).await?);
    }
    anyhow::ensure!(histories.values().map(Vec::len).sum::<usize>() == LINES + ROOMS);
    for (n, socket, spoken, in_order) in &sockets {
        for room in rooms_of(*n) {
            let history = &histories[&rooms[room]];
            check(socket, &rooms[room], history).await?;
            check_speech(&rooms[room], history, &accounts[*n], spoken, *in_order)?;
        }
        let gone = socket.reports().iter().any(|report| matches!(report, Report::State(kind, _) if kind == "disconnect"));
        anyhow::ensure!(!gone, "client {n} lost its connection");
    }
    Ok(())
}

/// The rooms that a client is in: two, so that each room has eight.
fn rooms_of(client: usize) -> [usize; 2] {
    [client % ROOMS, (client + 2) % ROOMS]
}

async fn signups(api: &Api) -> anyhow::Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for _ in 0..CLIENTS {
        accounts.push(api.signup().await?);
    }
    Ok(accounts)
}

async fn connect(gateways: &[String], balancer: &str, accounts: &[Account]) -> anyhow::Result<Vec<Socket>> {
    let stock = [Stock::javascript()?, Stock::python()?];
    let mut sockets = Vec::new();
    for (n, account) in accounts.iter().enumerate() {
        let stock = &stock[n % 2];
        let socket = match n / 2 % 2 {
            0 => stock.connect(&gateways[n / 4 % gateways.len()], &account.token, Transports::Upgrade).await?,
            _ => stock.connect(balancer, &account.token, Transports::WebSocket).await?,
        };
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Speaks the lines, each to its room; true when the server took each at the first try, so that they are in order.
async fn speak(socket: &Socket, lines: &[(String, String)]) -> anyhow::Result<bool> {
    let mut in_order = true;
    for lines in lines.chunks(WINDOW) {
        let messages = lines.iter().map(|(line, room)| json!({"roomId": room, "content": line, "clientMessageId": unique("line")}));
        let sends = messages.map(|message| (socket.emit_later("message", vec![message.clone()]), message)).collect::<Vec<_>>();
        for (ack, message) in sends {
            let mut ack = ack.await?.swap_remove(0);
            // A machine that is too busy is no fault; what an application does then is to try again.
            while matches!(ack["error"]["status"].as_u64(), Some(503 | 504)) {
                in_order = false;
                ack = socket.emit("message", message.clone()).await?;
            }
            anyhow::ensure!(ack["ok"] == true && ack["message"]["content"] == message["content"], "{message}: {ack}");
        }
    }
    Ok(in_order)
}

/// What the client heard in the room is its history.
async fn check(socket: &Socket, room: &str, history: &[Value]) -> anyhow::Result<()> {
    let heard = || socket.events("message").into_iter().filter(|message| message["roomId"] == room).collect::<Vec<_>>();
    let last = history.last().map(|message| message["id"].clone());
    let complete = async || (heard().last().map(|message| message["id"].clone()) == last).then_some(());
    let waited = eventually("the last message is heard", Duration::from_secs(20), complete).await;
    let heard = heard();
    let differs = heard.iter().zip(history).find(|(heard, stands)| heard != stands);
    anyhow::ensure!(differs.is_none(), "heard and history differ: {differs:?}");
    anyhow::ensure!(heard.len() == history.len(), "heard {} of {}; {waited:?}", heard.len(), history.len());
    let dense = history.iter().enumerate().all(|(n, message)| message["seq"] == n + 1);
    anyhow::ensure!(dense, "seq is not 1, 2, 3 …");
    Ok(())
}

/// What somebody said stands there once, byte for byte, and in the order in which it was said.
fn check_speech(room: &str, history: &[Value], speaker: &Account, spoken: &[(String, String)], in_order: bool) -> anyhow::Result<()> {
    let own = history.iter().filter(|message| message["sender"]["id"] == *speaker.id && message["content"] != "the end");
    let mut own = own.map(|message| message["content"].as_str().unwrap_or_default()).collect::<Vec<_>>();
    let mut spoken = spoken.iter().filter(|(_, to)| to == room).map(|(line, _)| line.as_str()).collect::<Vec<_>>();
    if !in_order {
        own.sort_unstable();
        spoken.sort_unstable();
    }
    anyhow::ensure!(own == spoken, "what {} said does not stand there as it was said", speaker.username);
    Ok(())
}

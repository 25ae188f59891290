//! Twenty stock clients send real text in five rooms, and each receives exactly the rooms' histories.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Account, Api, unique};
use crate::stock::{Report, Socket, Stock, Transports};
use crate::wait::eventually;
use crate::words;

/// The number of clients: half of them JavaScript, half Python.
pub const CLIENTS: usize = 20;
pub const ROOMS: usize = 5;
/// The total number of lines.
pub const LINES: usize = 5000;
/// How many sends of one client may await their acknowledgement at once.
const WINDOW: usize = 10;

/// Runs the conversation on a server or a load balancer. Half of the clients begin by polling, the others use only
/// WebSocket. Every send must succeed at the first attempt, since no faults are injected.
///
/// # Errors
/// When a send is rejected, or a client does not receive exactly the rooms' histories.
pub async fn converse(url: &str) -> anyhow::Result<()> {
    let api = Api::new(url);
    let accounts = signups(&api).await?;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(api.room(&accounts[0]).await?);
    }
    let sockets = connect(url, &accounts).await?;
    for (n, socket) in sockets.iter().enumerate() {
        for room in rooms_of(n) {
            let ack = socket.emit("joinRoom", json!(rooms[room])).await?;
            ensure!(ack["ok"] == true && ack["lastSeq"] == 0, "joinRoom: {ack}");
        }
    }

    let lines = words::lines(LINES)?;
    let mut speaking = JoinSet::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        // Each client sends to its rooms in turn.
        let own = lines.iter().skip(n).step_by(CLIENTS).cloned();
        let own =
            own.zip(rooms_of(n).into_iter().map(|room| rooms[room].clone()).collect::<Vec<_>>().into_iter().cycle());
        let own = own.collect::<Vec<_>>();
        speaking.spawn(async move {
            speak(&socket, &own).await?;
            anyhow::Ok((n, socket, own))
        });
    }
    let mut sockets = Vec::new();
    while let Some(spoken) = speaking.join_next().await {
        sockets.push(spoken??);
    }

    // A duplicate may arrive late, but not after a last message.
    let mut histories = HashMap::new();
    for room in &rooms {
        api.post("/api/messages", &accounts[0], json!({"roomId": room, "content": "the end"})).await?.expect(201)?;
        histories.insert(room.clone(), api.history(room, &accounts[0], 200).await?);
    }
    ensure!(histories.values().map(Vec::len).sum::<usize>() == LINES + ROOMS);
    for (n, socket, spoken) in &sockets {
        for room in rooms_of(*n) {
            let history = &histories[&rooms[room]];
            check(socket, &rooms[room], history).await?;
            check_speech(&rooms[room], history, &accounts[*n], spoken)?;
        }
        let gone =
            socket.reports().iter().any(|report| matches!(report, Report::State(kind, _) if kind == "disconnect"));
        ensure!(!gone, "client {n} lost its connection");
    }
    Ok(())
}

/// Returns the two rooms of a client; each room has eight clients.
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

async fn connect(url: &str, accounts: &[Account]) -> anyhow::Result<Vec<Socket>> {
    let stock = [Stock::javascript()?, Stock::python()?];
    let mut sockets = Vec::new();
    for (n, account) in accounts.iter().enumerate() {
        let transports = if n / 2 % 2 == 0 { Transports::Upgrade } else { Transports::WebSocket };
        sockets.push(stock[n % 2].connect(url, &account.token, transports).await?);
    }
    Ok(sockets)
}

/// Sends the lines, each to its room.
async fn speak(socket: &Socket, lines: &[(String, String)]) -> anyhow::Result<()> {
    for lines in lines.chunks(WINDOW) {
        let sends = lines.iter().map(|(line, room)| {
            let message = json!({"roomId": room, "content": line, "clientMessageId": unique("line")});
            socket.emit_later("message", vec![message])
        });
        for (ack, (line, _)) in sends.collect::<Vec<_>>().into_iter().zip(lines) {
            let ack = ack.await?.swap_remove(0);
            let taken = ack["ok"] == true && ack["duplicate"] == false && ack["message"]["content"] == **line;
            ensure!(taken, "{line}: {ack}");
        }
    }
    Ok(())
}

/// Checks that the client received exactly the room's history.
async fn check(socket: &Socket, room: &str, history: &[Value]) -> anyhow::Result<()> {
    let received =
        || socket.events("message").into_iter().filter(|message| message["roomId"] == room).collect::<Vec<_>>();
    let last = history.last().map(|message| message["id"].clone());
    let complete = async || (received().last().map(|message| message["id"].clone()) == last).then_some(());
    let waited = eventually("the last message arrives", Duration::from_secs(20), complete).await;
    let received = received();
    let differs = received.iter().zip(history).find(|(received, stands)| received != stands);
    ensure!(differs.is_none(), "received events and history differ: {differs:?}");
    ensure!(received.len() == history.len(), "received {} of {}; {waited:?}", received.len(), history.len());
    let dense = history.iter().enumerate().all(|(n, message)| message["seq"] == n + 1);
    ensure!(dense, "seq is not 1, 2, 3 …");
    Ok(())
}

/// Checks that the history has each line of a sender once, byte for byte, and in the order of sending.
fn check_speech(room: &str, history: &[Value], speaker: &Account, spoken: &[(String, String)]) -> anyhow::Result<()> {
    let own =
        history.iter().filter(|message| message["sender"]["id"] == *speaker.id && message["content"] != "the end");
    let own = own.map(|message| message["content"].as_str().unwrap_or_default()).collect::<Vec<_>>();
    let spoken = spoken.iter().filter(|(_, to)| to == room).map(|(line, _)| line.as_str()).collect::<Vec<_>>();
    let differs = own.iter().zip(&spoken).find(|(stands, said)| stands != said);
    ensure!(own == spoken, "the lines of {} differ in history: {differs:?}", speaker.username);
    Ok(())
}

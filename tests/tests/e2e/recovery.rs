//! Connection state recovery with the stock client: a returning client receives the missed events, once and before any
//! new event, or learns that it was not recovered.

mod exactness;

use std::time::Duration;

use confab_tests::api::{Account, Api, unique};
use confab_tests::plan::Role;
use confab_tests::stock::{Report, Socket, Stock, Transports};
use serde_json::{Value, json};

use crate::world;

const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

/// Connects a client that requests recovery; it reconnects on its own unless `reconnection` is off.
async fn connect(
    stock: &Stock,
    url: &str,
    account: &Account,
    transports: Transports,
    reconnection: bool,
) -> anyhow::Result<Socket> {
    let transports = match transports {
        Transports::Upgrade => json!(["polling", "websocket"]),
        Transports::WebSocket => json!(["websocket"]),
        Transports::Polling => json!(["polling"]),
    };
    let auth = json!({"token": account.token, "recovery": true});
    let socket = stock.open(
        url,
        json!({"auth": auth, "transports": transports, "reconnection": reconnection, "reconnectionDelay": 50, "reconnectionDelayMax": 500}),
    );
    let connected = socket.state("connect").await?;
    anyhow::ensure!(connected["recovered"] == false, "{connected}");
    Ok(socket)
}

async fn join(socket: &Socket, room: &str) -> anyhow::Result<()> {
    let ack = socket.emit("joinRoom", json!(room)).await?;
    anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
    Ok(())
}

/// Repeats sends until they are acknowledged.
async fn say(api: &Api, account: &Account, room: &str, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let message = json!({"roomId": room, "content": "something", "clientMessageId": unique("say")});
        let sent = async || {
            matches!(api.post("/api/messages", account, message.clone()).await, Ok(answer) if answer.status < 300)
                .then_some(())
        };
        confab_tests::wait::eventually("a message is sent", DELIVERY_LIMIT, sent).await?;
    }
    Ok(())
}

/// Returns the events of a room in order of arrival. Every event must end in an offset.
fn received(reports: &[Report], room: &str) -> Vec<Value> {
    let events = reports.iter().filter_map(|report| match report {
        Report::Event(name, arguments) => {
            assert!(arguments.last().is_some_and(Value::is_string), "{name} without an offset: {arguments:?}");
            arguments.first()
        }
        _ => None,
    });
    // Others, such as `unread`, are not part of the room's log.
    events.filter(|event| event["roomId"] == room && event["seq"].is_u64()).cloned().collect()
}

/// Waits until the received events of a room are its whole history.
async fn receives_history(socket: &Socket, api: &Api, account: &Account, room: &str) -> anyhow::Result<()> {
    let history = api.history(room, account, 200).await?;
    let all = |reports: &[Report]| (received(reports, room).len() >= history.len()).then_some(());
    socket.until("all of the room's history", DELIVERY_LIMIT, all).await?;
    assert_eq!(received(&socket.reports(), room), history);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returning_client_receives_missed_events_before_new_ones() {
    let api = Api::new(world::embedded().await.url());
    let stock = Stock::javascript().unwrap();
    for transports in [Transports::WebSocket, Transports::Upgrade, Transports::Polling] {
        let account = api.signup().await.unwrap();
        let rooms = [api.room(&account).await.unwrap(), api.room(&account).await.unwrap()];
        let socket = connect(&stock, &api.url, &account, transports, false).await.unwrap();
        for room in &rooms {
            join(&socket, room).await.unwrap();
        }
        for round in 2..5 {
            say(&api, &account, &rooms[0], 3).await.unwrap();
            socket.cut();
            socket.states("disconnect", round - 1).await.unwrap();
            say(&api, &account, &rooms[0], 4).await.unwrap();
            say(&api, &account, &rooms[1], 2).await.unwrap();
            socket.reconnect();
            assert_eq!(socket.states("connect", round).await.unwrap()["recovered"], true);
            say(&api, &account, &rooms[1], 3).await.unwrap();
            for room in &rooms {
                receives_history(&socket, &api, &account, room).await.unwrap();
            }
        }
        // A room that the client has left is not recovered.
        assert_eq!(socket.emit("leaveRoom", json!(rooms[0])).await.unwrap(), json!({"ok": true}));
        let before = received(&socket.reports(), &rooms[0]).len();
        socket.cut();
        socket.states("disconnect", 4).await.unwrap();
        say(&api, &account, &rooms[0], 1).await.unwrap();
        say(&api, &account, &rooms[1], 1).await.unwrap();
        socket.reconnect();
        assert_eq!(socket.states("connect", 5).await.unwrap()["recovered"], true);
        receives_history(&socket, &api, &account, &rooms[1]).await.unwrap();
        assert_eq!(received(&socket.reports(), &rooms[0]).len(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_survives_a_killed_gateway_and_an_empty_redis() {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let account = gateways[0].signup().await.unwrap();
    let room = gateways[0].room(&account).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let balancer = cluster.plan.url((Role::Lb, 1));
    let mut sockets = Vec::new();
    for _ in 0..6 {
        let socket = connect(&stock, &balancer, &account, Transports::WebSocket, true).await.unwrap();
        join(&socket, &room).await.unwrap();
        sockets.push(socket);
    }
    for n in [1, 2] {
        let other = &gateways[2 - usize::from(n)];
        say(other, &account, &room, 3).await.unwrap();
        cluster.kill((Role::Redis, 1)).await.unwrap();
        cluster.kill((Role::Gateway, n)).await.unwrap();
        say(other, &account, &room, 5).await.unwrap();
        cluster.start((Role::Redis, 1)).await.unwrap();
        cluster.start((Role::Gateway, n)).await.unwrap();
        say(other, &account, &room, 3).await.unwrap();
    }
    let mut returned = 0;
    for socket in &sockets {
        receives_history(socket, &gateways[0], &account, &room).await.unwrap();
        let connects = socket.reports();
        let connects = connects.iter().filter_map(|report| match report {
            Report::State(kind, details) if kind == "connect" => Some(details["recovered"].clone()),
            _ => None,
        });
        let recovered = connects.skip(1).collect::<Vec<_>>();
        assert!(recovered.iter().all(|recovered| *recovered == true), "{recovered:?}");
        returned += recovered.len();
    }
    // Each client was connected to one of the two gateways, and both were killed.
    assert!(returned >= sockets.len(), "{returned}");
}

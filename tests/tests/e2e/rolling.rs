//! Every process of the cluster is shut down and restarted in turn while clients chat: no request fails, and no message
//! is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use confab_tests::api::{Account, Api, unique};
use confab_tests::plan::Role;
use confab_tests::stock::{Report, Socket, Stock};
use confab_tests::wait::eventually;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::world;

/// Requests that must be answered between two shutdowns.
const BETWEEN: usize = 50;
/// The pause between two requests or messages of one client, so long that the load balancer opens many new connections
/// to gateways.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);

async fn listener(
    stock: &Stock,
    url: &str,
    account: &Account,
    room: &str,
    transports: &[&str],
) -> anyhow::Result<Socket> {
    let auth = json!({"token": account.token, "recovery": true});
    let options = json!({"auth": auth, "transports": transports, "reconnectionDelay": 50, "reconnectionDelayMax": 500});
    let socket = stock.open(url, options);
    socket.state("connect").await?;
    let ack = socket.emit("joinRoom", json!(room)).await?;
    anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
    Ok(socket)
}

/// Sends REST requests; each must succeed at the first attempt.
async fn ask(
    api: Api,
    account: Account,
    room: String,
    answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) -> anyhow::Result<usize> {
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let message = json!({"roomId": room, "content": sent.to_string(), "clientMessageId": unique("rolling")});
        api.post("/api/messages", &account, message).await?.expect(201)?;
        sent += 1;
        api.get(&format!("/api/messages/{room}?limit=1"), &account).await?.expect(200)?;
        api.get("/api/auth/me", &account).await?.expect(200)?;
        answered.fetch_add(1, Ordering::Relaxed);
        sleep(REQUEST_INTERVAL).await;
    }
    Ok(sent)
}

/// A stock client that repeats each message until it is acknowledged.
async fn speak(socket: Socket, room: String, over: Arc<AtomicBool>) -> anyhow::Result<(Socket, usize)> {
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let message = json!({"roomId": room, "content": sent.to_string(), "clientMessageId": unique("speak")});
        let acknowledged = async {
            loop {
                let answer = timeout(Duration::from_secs(3), socket.emit_later("message", vec![message.clone()])).await;
                if matches!(answer, Ok(Ok(ack)) if ack[0]["ok"] == true) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(30), acknowledged).await.context("a message is acknowledged")?;
        sent += 1;
        sleep(REQUEST_INTERVAL).await;
    }
    Ok((socket, sent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_under_load_fails_no_request() {
    let cluster = world::breakable().await;
    let api = Api::new(cluster.plan.url((Role::Lb, 1)));
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let mut sockets = Vec::new();
    for n in 0..6 {
        let transports: &[&str] = [&["websocket"][..], &["polling", "websocket"], &["polling"]][n % 3];
        sockets.push(listener(&stock, &api.url, &account, &room, transports).await.unwrap());
    }
    let (answered, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        asking.spawn(ask(api.clone(), account.clone(), room.clone(), answered.clone(), over.clone()));
    }
    let mut speaking = JoinSet::new();
    for socket in sockets.drain(..3) {
        speaking.spawn(speak(socket, room.clone(), over.clone()));
    }
    for role in [Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::File] {
        for n in 1..=2 {
            let before = answered.load(Ordering::Relaxed);
            let goes_on =
                async || (asking.is_empty() || answered.load(Ordering::Relaxed) > before + BETWEEN).then_some(());
            cluster.leave((role, n)).await.unwrap();
            cluster.start((role, n)).await.unwrap();
            eventually("requests are answered", Duration::from_secs(30), goes_on).await.unwrap();
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while let Some(asked) = asking.join_next().await {
        sent += asked.unwrap().unwrap();
    }
    while let Some(spoken) = speaking.join_next().await {
        let (socket, spoken) = spoken.unwrap().unwrap();
        sockets.push(socket);
        sent += spoken;
    }
    let history = api.history(&room, &account, 200).await.unwrap();
    assert_eq!(history.len(), sent);
    for socket in &sockets {
        let all = |_: &[Report]| (socket.events("message").len() >= history.len()).then_some(());
        socket.until("every message arrives", Duration::from_secs(20), all).await.unwrap();
        let received = socket.events("message");
        let differs = received.iter().zip(&history).position(|(received, stands)| received != stands);
        assert_eq!((received.len(), differs), (history.len(), None));
    }
}

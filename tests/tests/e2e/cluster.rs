//! Two gateways and two replicas of every service form one chat, even while parts of it are missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use confab_tests::api::{Account, Api, repeated, unique};
use confab_tests::plan::Role;
use confab_tests::raw::PACKET_LIMIT;
use confab_tests::stock::{Report, Socket, Stock, Transports};
use confab_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world;

/// Creates an account and its room in a cluster of two gateways.
async fn stage(gateways: &[Api]) -> anyhow::Result<(Account, String)> {
    let account = gateways[0].signup().await?;
    let room = gateways[0].room(&account).await?;
    Ok((account, room))
}

async fn listener(stock: &Stock, gateway: &Api, account: &Account, room: &str) -> anyhow::Result<Socket> {
    let socket = stock.connect(&gateway.url, &account.token, Transports::WebSocket).await?;
    let ack = socket.emit("joinRoom", json!(room)).await?;
    anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
    Ok(socket)
}

fn ended(reports: &[Report]) -> Option<()> {
    reports.iter().any(|report| matches!(report, Report::State(kind, _) if kind == "disconnect")).then_some(())
}

fn received(socket: &Socket, content: &str) -> bool {
    socket.events("message").iter().any(|message| message["content"] == content)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_sent_three_times_at_once_is_stored_once() {
    let gateways = world::gateways(world::cluster().await);
    let (account, room) = stage(&gateways).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let socket = listener(&stock, &gateways[1], &account, &room).await.unwrap();
    for n in 1..=50 {
        let message = json!({"roomId": room, "content": format!("number {n}"), "clientMessageId": unique("triple")});
        let by_socket = socket.emit("message", message.clone());
        let by_rest =
            gateways.iter().map(|gateway| gateway.post("/api/messages", &account, message.clone())).collect::<Vec<_>>();
        let [first, second] = <[_; 2]>::try_from(by_rest).ok().unwrap();
        let (first, second, third) = tokio::join!(first, second, by_socket);
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        for answer in [&first, &second] {
            let expected = if answer.status == 200 { repeated(&third["message"]) } else { third["message"].clone() };
            assert_eq!(answer.body, expected, "{n}");
        }
        // Each of the three sends has its own event id, and the message has one of these ids, so exactly one is new.
        let mut outcomes = [first.status == 200, second.status == 200, third["duplicate"].as_bool().unwrap()];
        outcomes.sort_unstable();
        assert_eq!(outcomes, [false, true, true], "{n}: {} {} {third}", first.status, second.status);
    }
    let history = gateways[0].history(&room, &account, 200).await.unwrap();
    assert_eq!(
        history.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=50).collect::<Vec<_>>()
    );
    let all = |_: &[Report]| (socket.events("message").len() >= 50).then_some(());
    socket.until("fifty messages", Duration::from_secs(20), all).await.unwrap();
    assert_eq!(socket.events("message"), history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_message_replica_loses_no_acknowledged_message() {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let (account, room) = stage(&gateways).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let socket = listener(&stock, &gateways[1], &account, &room).await.unwrap();

    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for n in 0..8 {
        let (api, account, room, acknowledged) =
            (gateways[n % 2].clone(), account.clone(), room.clone(), acknowledged.clone());
        writers.spawn(async move {
            let mut sent = Vec::new();
            for line in 0..100 {
                sent.push(persist(&api, &account, &room, &format!("{n}: {line}")).await?);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(sent)
        });
    }
    let count = async |least: usize| (acknowledged.load(Ordering::Relaxed) >= least).then_some(());
    for (least, n) in [(200, 1), (450, 2)] {
        eventually("load", Duration::from_secs(60), async || count(least).await).await.unwrap();
        cluster.kill((Role::Message, n)).await.unwrap();
        eventually("clients continue to send", Duration::from_secs(60), async || count(least + 100).await)
            .await
            .unwrap();
        cluster.start((Role::Message, n)).await.unwrap();
    }
    let mut sent = Vec::new();
    while let Some(written) = writers.join_next().await {
        sent.append(&mut written.unwrap().unwrap());
    }

    let history = gateways[0].history(&room, &account, 200).await.unwrap();
    assert_eq!(history.len(), 800);
    sent.sort_by_key(|message| message["seq"].as_u64());
    assert_eq!(sent, history);
    let all = |_: &[Report]| (socket.events("message").len() >= 800).then_some(());
    socket.until("all messages arrive", Duration::from_secs(20), all).await.unwrap();
    assert_eq!(socket.events("message"), history);
}

/// Repeats a send until it is acknowledged, as a careful client does.
async fn persist(api: &Api, account: &Account, room: &str, content: &str) -> anyhow::Result<Value> {
    let message = json!({"roomId": room, "content": content, "clientMessageId": unique("persist")});
    let sent = async {
        loop {
            match api.post("/api/messages", account, message.clone()).await {
                Ok(answer) if answer.status == 200 || answer.status == 201 => return Ok(answer.body),
                Ok(answer) if answer.status != 503 && answer.status != 504 => {
                    anyhow::bail!("{} {}", answer.status, answer.body)
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sent).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_closes_sockets_at_the_other_gateway() {
    let gateways = world::gateways(world::cluster().await);
    let stock = Stock::javascript().unwrap();
    // The promise is one second; on a busy machine the best of three attempts shows it.
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let account = gateways[0].signup().await.unwrap();
        let socket = stock.connect(&gateways[1].url, &account.token, Transports::WebSocket).await.unwrap();
        gateways[0].get("/api/auth/logout", &account).await.unwrap().expect(200).unwrap();
        let begin = Instant::now();
        socket.until("the socket is closed", PACKET_LIMIT, ended).await.unwrap();
        fastest = fastest.min(begin.elapsed());
        assert_eq!(socket.events("sessionEnded"), [json!({"code": "logged_out"})]);
        let refused = async || (gateways[1].get("/api/auth/me", &account).await.ok()?.status == 401).then_some(());
        eventually("the token is rejected", PACKET_LIMIT, refused).await.unwrap();
    }
    assert!(fastest <= Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_messages_and_logouts_reach_the_other_gateway() {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let (account, room) = stage(&gateways).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let socket = listener(&stock, &gateways[1], &account, &room).await.unwrap();
    cluster.kill((Role::Redis, 1)).await.unwrap();

    for n in 0..5 {
        let content = format!("without redis {n}");
        persist(&gateways[0], &account, &room, &content).await.unwrap();
        let arrived = |_: &[Report]| received(&socket, &content).then_some(());
        socket.until("a message without redis", PACKET_LIMIT, arrived).await.unwrap();
    }
    gateways[0].get("/api/auth/logout", &account).await.unwrap().expect(200).unwrap();
    socket.until("the socket is closed without redis", PACKET_LIMIT, ended).await.unwrap();
    assert_eq!(gateways[1].get("/api/auth/me", &account).await.unwrap().status, 401);

    cluster.start((Role::Redis, 1)).await.unwrap();
    let (account, room) = stage(&gateways).await.unwrap();
    let socket = listener(&stock, &gateways[1], &account, &room).await.unwrap();
    persist(&gateways[0], &account, &room, "redis is back").await.unwrap();
    socket.until("a message", PACKET_LIMIT, |_| received(&socket, "redis is back").then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_survives_every_auth_replica() {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let account = gateways[0].signup().await.unwrap();
    gateways[0].get("/api/auth/logout", &account).await.unwrap().expect(200).unwrap();
    for member in [(Role::Auth, 1), (Role::Auth, 2), (Role::Gateway, 1)] {
        cluster.kill(member).await.unwrap();
    }
    for member in [(Role::Auth, 1), (Role::Auth, 2), (Role::Gateway, 1)] {
        cluster.start(member).await.unwrap();
    }
    for gateway in &gateways {
        // The surviving gateway may have missed the hint; then it reads the revocation from auth.
        let refused = async || (gateway.get("/api/auth/me", &account).await.ok()?.status == 401).then_some(());
        eventually("the token is rejected", PACKET_LIMIT, refused).await.unwrap();
    }
}

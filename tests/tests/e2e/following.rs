//! How gateways catch up, and how they treat clients that read too little.

use std::time::{Duration, Instant};

use confab_tests::api::{Account, Api};
use confab_tests::daemon::Daemon;
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::plan::{Member, Role};
use confab_tests::raw::{Client, WebSocket};
use confab_tests::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world;

const EVENT_LIMIT: Duration = Duration::from_secs(15);

/// Stops a process until this is dropped.
struct StandingStill(Daemon);

impl StandingStill {
    fn new(daemon: Daemon) -> Self {
        assert!(daemon.signal(Signal::STOP));
        Self(daemon)
    }
}

impl Drop for StandingStill {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

async fn member(gateway: &Api, account: &Account, room: &str) -> anyhow::Result<WebSocket> {
    let mut socket = WebSocket::connect(&gateway.url, &account.token).await?;
    let ack = socket.emit("joinRoom", json!(room)).await?;
    anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
    Ok(socket)
}

fn message(room: &str, content: &str) -> Value {
    json!({"roomId": room, "content": content})
}

/// Returns how many pauses a gateway has detected.
async fn pauses(metrics: &str) -> anyhow::Result<u64> {
    let text = reqwest::get(metrics).await?.text().await?;
    Ok(text.lines().find_map(|line| line.strip_prefix("confab_pauses_total ")).map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_gateway_sends_nothing_to_a_logged_out_client() {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let (owner, leaver) = (gateways[0].signup().await.unwrap(), gateways[0].signup().await.unwrap());
    let room = gateways[0].room(&owner).await.unwrap();
    let mut stays = member(&gateways[1], &owner, &room).await.unwrap();
    let mut leaves = Vec::new();
    for _ in 0..20 {
        leaves.push(member(&gateways[1], &leaver, &room).await.unwrap());
    }
    let history = format!("/api/messages/{room}");
    let metrics = format!("http://127.0.0.1:{}/metrics", cluster.plan.admin_port((Role::Gateway, 2)));
    let before = pauses(&metrics).await.unwrap();
    // Only auth itself can inform the gateway of the logout, and it will not answer at once.
    cluster.kill((Role::Redis, 1)).await.unwrap();
    let stopped = StandingStill::new(cluster.daemon((Role::Gateway, 2)).unwrap());
    gateways[0].get("/api/auth/logout", &leaver).await.unwrap().expect(200).unwrap();
    let (begin, mut sent) = (Instant::now(), Vec::new());
    while begin.elapsed() < Duration::from_secs(4) {
        sent.push(
            gateways[0].post("/api/messages", &owner, message(&room, "meanwhile")).await.unwrap().expect(201).unwrap(),
        );
    }
    for n in [1, 2] {
        cluster.kill((Role::Auth, n)).await.unwrap();
    }
    // The gateway sees this request first, because it arrived during the pause.
    let late = gateways[1].get(&history, &leaver);
    let mut late = std::pin::pin!(late);
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut late).await.is_err());
    drop(stopped);
    let noticed = async || (pauses(&metrics).await.ok()? > before).then_some(());
    eventually("the gateway has detected the pause", EVENT_LIMIT, noticed).await.unwrap();
    let status = late.await.unwrap().status;
    assert!([401, 503].contains(&status), "{status}");
    for n in [1, 2] {
        cluster.start((Role::Auth, n)).await.unwrap();
    }
    cluster.start((Role::Redis, 1)).await.unwrap();
    for said in sent {
        assert_eq!(stays.event("message").await.unwrap(), said);
    }
    for mut socket in leaves {
        socket.closed(EVENT_LIMIT).await.unwrap();
        assert_eq!(socket.taken_events().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["sessionEnded"]);
    }
}

/// Checks that, while these are away, possible sends arrive and no gateway leaves the load balancer.
async fn stay_ready_without(gone: &[Member], sends: bool) {
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let owner = gateways[0].signup().await.unwrap();
    let room = gateways[0].room(&owner).await.unwrap();
    let mut listener = member(&gateways[1], &owner, &room).await.unwrap();
    let mut say = async || {
        let sent =
            gateways[0].post("/api/messages", &owner, message(&room, "still here")).await.ok()?.expect(201).ok()?;
        // A send answered with an error may still have been executed.
        while listener.event("message").await.unwrap() != sent {}
        Some(())
    };
    say().await.unwrap();
    for member in gone {
        cluster.kill(*member).await.unwrap();
    }
    // A gateway that does not follow the log becomes unready after five seconds.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        for n in 1..=cluster.plan.gateways {
            let readyz = format!("http://127.0.0.1:{}/readyz", cluster.plan.admin_port((Role::Gateway, n)));
            let answer = reqwest::get(readyz).await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            // An outage of Redis is reported, and does not make the gateway unready.
            let is_ready = text == "ready\n" || text.starts_with("ready; bus: ");
            assert!(status == 200 && is_ready, "gateway {n}: {status} {text}");
        }
        if sends { say().await.unwrap() } else { tokio::time::sleep(Duration::from_millis(200)).await }
    }
    for member in gone {
        cluster.start(*member).await.unwrap();
    }
    eventually("a message arrives", EVENT_LIMIT, say).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_stay_ready_without_redis() {
    stay_ready_without(&[(Role::Redis, 1)], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_stay_ready_without_the_room_service() {
    stay_ready_without(&[(Role::Room, 1), (Role::Room, 2)], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_stay_ready_without_the_message_service() {
    stay_ready_without(&[(Role::Message, 1), (Role::Message, 2)], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_client_receives_a_large_gap_completely() {
    const COUNT: u64 = 9000;
    let cluster = world::breakable().await;
    let gateways = world::gateways(&cluster);
    let owner = gateways[0].signup().await.unwrap();
    let room = gateways[0].room(&owner).await.unwrap();
    let mut reader = member(&gateways[1], &owner, &room).await.unwrap();
    // One client alone may not send that much that fast.
    let mut writers = Vec::new();
    for _ in 0..5 {
        writers.push(WebSocket::connect(&gateways[0].url, &owner.token).await.unwrap());
    }
    cluster.kill((Role::Redis, 1)).await.unwrap();
    let stopped = StandingStill::new(cluster.daemon((Role::Gateway, 2)).unwrap());
    let lines = vec![message(&room, &"x".repeat(300)); 100];
    for batch in 0..COUNT / 100 {
        let writer = &mut writers[batch as usize % 5];
        for number in writer.emit_all("message", &lines).await.unwrap() {
            let ack = writer.ack(number).await.unwrap();
            assert_eq!(ack["ok"], true, "{ack}");
        }
    }
    drop(stopped);
    for seq in 1..=COUNT {
        assert_eq!(reader.event("message").await.unwrap()["seq"], seq);
    }
    cluster.start((Role::Redis, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn total_size_of_outboxes_is_bounded() {
    let server = Embedded::start(&[("CONFAB_MAX_OUTBOX_BYTES", "600000")]).await.unwrap();
    let api = Api::new(server.url());
    let owner = api.signup().await.unwrap();
    let room = api.room(&owner).await.unwrap();
    let reader = api.signup().await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut socket = WebSocket::open_narrow(&api.url, 4096).await.unwrap();
        socket.enter(&reader.token).await.unwrap();
        assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
        stalled.push(socket);
    }
    let mut listener = member(&api, &owner, &room).await.unwrap();
    // Each client alone could hold a megabyte.
    let large = message(&room, &"x".repeat(16_000));
    let closed = async || {
        let ack = listener.emit("message", large.clone()).await.ok()?;
        assert_eq!(listener.event("message").await.ok()?, ack["message"]);
        (stalled.iter().filter(|socket| socket.unread().is_err()).count() >= 2).then_some(())
    };
    eventually("two are closed", Duration::from_secs(60), closed).await.unwrap();
    let seen = Exposition::scrape(server.admin_port()).await.unwrap();
    let closes = |reason: &str| seen.value(&format!("confab_outbox_closes_total{{reason=\"{reason}\"}}"));
    assert!(closes("total").is_some_and(|closes| closes > 0.0));
    assert_eq!(closes("overflow"), Some(0.0));
}

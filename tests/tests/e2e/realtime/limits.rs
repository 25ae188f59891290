//! Limits that are settings: each with a small value, and each turned off.

use std::time::Instant;

use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::raw::{Client, Polling, WebSocket, connect, text};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, fails, strict, unlimited};

#[tokio::test]
async fn events_a_second() {
    let server = strict().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::at(server).await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let began = Instant::now();
    let outcomes = flood(&mut socket, 1000).await.unwrap();
    // Fifty per second, a hundred at once; the rest is rejected without further effect.
    let admitted = outcomes.iter().filter(|ack| ack["ok"] == true).count();
    let most = 101 + 50 * began.elapsed().as_millis() as usize / 1000;
    assert!((100..=most).contains(&admitted), "{admitted} of {most} admitted");
    assert!(outcomes.iter().take(100).all(|ack| ack["ok"] == true));
    let refusal = outcomes.iter().find(|ack| ack["ok"] == false).unwrap();
    fails(refusal, 429, "rate_limited");
    // After a while events are admitted again.
    let admitted = async || (socket.emit("leaveRoom", json!(scene.room)).await.ok()?["ok"] == true).then_some(());
    confab_tests::wait::eventually("an event is admitted again", CLOSE_LIMIT, admitted).await.unwrap();
    bystanders.noticed_nothing().await;

    let scene = Scene::at(unlimited().await).await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let outcomes = flood(&mut socket, 10_000).await.unwrap();
    assert!(outcomes.iter().all(|ack| ack["ok"] == true));
}

/// Sends `count` events at once; returns their acknowledgements.
async fn flood(socket: &mut WebSocket, count: u64) -> anyhow::Result<Vec<Value>> {
    let room = uuid::Uuid::now_v7();
    let packets = (1..=count).flat_map(|n| text(&format!(r#"42{}["leaveRoom","{room}"]"#, 100_000 + n)));
    socket.write(&packets.collect::<Vec<_>>()).await?;
    let mut acks = Vec::new();
    for n in 1..=count {
        acks.push(socket.ack(100_000 + n).await?);
    }
    Ok(acks)
}

#[tokio::test]
async fn rooms_per_socket() {
    let server = strict().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::at(server).await.unwrap();
    let mut rooms = vec![scene.room.clone()];
    for _ in 0..3 {
        rooms.push(scene.api.room(&scene.account).await.unwrap());
    }
    let mut socket = scene.socket().await.unwrap();
    for room in &rooms[..3] {
        assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    }
    fails(&socket.emit("joinRoom", json!(rooms[3])).await.unwrap(), 429, "rate_limited");
    assert_eq!(socket.emit("joinRoom", json!(rooms[0])).await.unwrap()["ok"], true);
    assert_eq!(socket.emit("leaveRoom", json!(rooms[0])).await.unwrap()["ok"], true);
    // A failed join does not count.
    fails(&socket.emit("joinRoom", json!(uuid::Uuid::now_v7())).await.unwrap(), 404, "not_found");
    assert_eq!(socket.emit("joinRoom", json!(rooms[3])).await.unwrap()["ok"], true);
    // Nor does a deleted room.
    let deleted = scene
        .api
        .call(reqwest::Method::DELETE, &format!("/api/rooms/{}", rooms[1]), Some(&scene.account), None)
        .await
        .unwrap();
    assert_eq!(deleted.status, 204);
    socket.event("roomDeleted").await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(rooms[0])).await.unwrap()["ok"], true);
    bystanders.noticed_nothing().await;

    let scene = Scene::at(unlimited().await).await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    for _ in 0..20 {
        let room = scene.api.room(&scene.account).await.unwrap();
        assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    }
}

#[tokio::test]
async fn sockets_per_address() {
    let settings = [("CONFAB_MAX_SOCKETS_PER_ADDRESS", "3"), ("CONFAB_TRUSTED_PROXIES", "127.0.0.1")];
    let server = Embedded::start(&settings).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let other = scene.api.signup().await.unwrap();
    let polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let mut sockets = [scene.socket().await.unwrap(), WebSocket::connect(&scene.url, &other.token).await.unwrap()];
    // The limit counts both transports, and the sockets of all users.
    let mut over = WebSocket::open(&scene.url).await.unwrap();
    over.send(&connect(&other.token)).await.unwrap();
    over.closed(CLOSE_LIMIT).await.unwrap();
    assert!(over.entered().await.is_err());
    assert!(Polling::connect(&scene.url, &other.token).await.is_err());
    let mut elsewhere = WebSocket::open_with(&scene.url, &[("X-Forwarded-For", "203.0.113.7")]).await.unwrap();
    elsewhere.enter(&other.token).await.unwrap();
    for socket in sockets.iter_mut().chain([&mut elsewhere]) {
        assert_eq!(socket.emit("leaveRoom", json!(scene.room)).await.unwrap()["ok"], true);
    }
    let seen = Exposition::scrape(server.admin_port()).await.unwrap();
    assert_eq!(seen.value("confab_limits_total{limit=\"sockets_per_address\"}"), Some(2.0));
    assert_eq!(seen.value("confab_limits_total{limit=\"sockets_per_user\"}"), Some(0.0));
    // A permit becomes free when a socket ends, however it ends.
    polling.post("1").await.unwrap();
    let again = async || WebSocket::connect(&scene.url, &other.token).await.ok();
    confab_tests::wait::eventually("a permit is free", CLOSE_LIMIT, again).await.unwrap();
}

#[tokio::test]
async fn sockets_per_user() {
    let server = strict().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::at(server).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(scene.socket().await.unwrap());
    }
    let mut over = WebSocket::open(&scene.url).await.unwrap();
    over.send(&connect(&scene.account.token)).await.unwrap();
    // Closed at the transport, so that a stock client reconnects.
    over.closed(CLOSE_LIMIT).await.unwrap();
    assert!(over.entered().await.is_err());
    for socket in &mut sockets {
        assert_eq!(socket.emit("leaveRoom", json!(scene.room)).await.unwrap()["ok"], true);
    }
    // A permit becomes free when a socket ends, however it ends.
    drop(sockets.pop());
    let again = async || scene.socket().await.ok();
    let again = confab_tests::wait::eventually("a permit is free", CLOSE_LIMIT, again).await.unwrap();
    drop((again, sockets));
    bystanders.noticed_nothing().await;

    let scene = Scene::at(unlimited().await).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(scene.socket().await.unwrap());
    }
}

#[tokio::test]
async fn packet_size() {
    let server = strict().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::at(server).await.unwrap();
    let padded = |bytes: usize| json!({"roomId": scene.room, "content": "x", "padding": "x".repeat(bytes)});
    let mut socket = scene.socket().await.unwrap();
    assert_eq!(socket.emit("message", padded(19_000)).await.unwrap()["ok"], true);
    socket.emit_later("message", &padded(20_000)).await.unwrap();
    assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1009));

    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    assert_eq!(polling.emit("message", padded(19_000)).await.unwrap()["ok"], true);
    let answer = polling.request(reqwest::Method::POST).body("x".repeat(20_001)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], 3);
    bystanders.noticed_nothing().await;

    let scene = Scene::at(unlimited().await).await.unwrap();
    let padded = json!({"roomId": scene.room, "content": "x", "padding": "x".repeat(3_000_000)});
    assert_eq!(scene.socket().await.unwrap().emit("message", padded.clone()).await.unwrap()["ok"], true);
    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    assert_eq!(polling.emit("message", padded).await.unwrap()["ok"], true);
}

#[tokio::test]
async fn time_to_connect_may_be_off() {
    let server = unlimited().await;
    let scene = Scene::at(server).await.unwrap();
    let mut socket = WebSocket::open(&scene.url).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    socket.enter(&scene.account.token).await.unwrap();
}

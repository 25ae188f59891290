//! Clients that have not connected: little is buffered for each and for all together, and nothing afterwards.

use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, Polling, WebSocket, open_and_forget};
use confab_tests::wait::eventually;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, memory, value};
use crate::world;

const MEGABYTE: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_without_connect_are_bounded_and_do_not_leak() {
    let server = Embedded::start(&[("CONFAB_MAX_PENDING_SESSIONS", "1000")]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let mut member = scene.member().await.unwrap();
    open_and_forget(&server.url(), 2000, "").await.unwrap();
    let before = memory(&server);
    let long = format!("Authorization: Bearer {}\r\n", "x".repeat(30_000));
    let url = server.url();
    let flood =
        async { tokio::try_join!(open_and_forget(&url, 20_000, ""), open_and_forget(&url, 3000, &long)).unwrap() };
    let mut flood = std::pin::pin!(flood);
    let (mut largest, mut connected) = (0, 0);
    loop {
        tokio::select! {
            biased;
            _ = &mut flood => break,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let pending = value(&server, "confab_pending_sessions").await;
        assert!(pending <= 1000.0, "{pending}");
        largest = largest.max(memory(&server).saturating_sub(before));
        // Connected clients continue, and new ones can connect.
        assert_eq!(member.emit("message", scene.message("meanwhile")).await.unwrap()["ok"], true);
        connected += usize::from(scene.socket().await.is_ok());
    }
    assert!(connected > 0);
    assert!(largest < 100 * MEGABYTE, "{largest} bytes more");
    assert!(value(&server, "confab_limits_total{limit=\"pending_sessions\"}").await > 20_000.0);
    let gone = async || (value(&server, "confab_pending_sessions").await == 0.0).then_some(());
    eventually("all sessions are closed", 3 * CLOSE_LIMIT, gone).await.unwrap();
    let as_before = async || (memory(&server).saturating_sub(before) < 40 * MEGABYTE).then_some(());
    eventually("memory is back to normal", Duration::from_secs(60), as_before).await.unwrap();
}

#[tokio::test]
async fn long_bearer_is_rejected_on_connect_but_auth_token_counts() {
    let scene = Scene::new().await.unwrap();
    let long = format!("Bearer {}", "x".repeat(30_000));
    let mut socket = WebSocket::open_with(&scene.url, &[("Authorization", &long)]).await.unwrap();
    socket.send("40").await.unwrap();
    assert_eq!(socket.refused().await.unwrap()["data"], json!({"code": "unauthorized", "status": 401}));
    let mut socket = WebSocket::open_with(&scene.url, &[("Authorization", &long)]).await.unwrap();
    socket.enter(&scene.account.token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_buffers_little_for_a_client_before_connect() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let url = server.url();
    // A second namespace, an attachment, a long ping, too many packets.
    let many = vec!["6"; 2000].join("\u{1e}");
    for body in ["40/a,\u{1e}40/b,", r#"451-["x",{}]"#, &format!("2{}", "x".repeat(200)), &many] {
        let polling = Polling::open(&url).await.unwrap();
        assert_eq!(polling.post(body).await.unwrap(), (400, json!({"code": 3, "message": "Bad request"})));
        assert_eq!(polling.get().await.unwrap().0, 400);
        let mut socket = WebSocket::open(&url).await.unwrap();
        let packets = body.split('\u{1e}').flat_map(confab_tests::raw::text).collect::<Vec<_>>();
        socket.write(&packets).await.unwrap();
        assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1002), "{body}");
    }
    // More than a payload or a frame may contain.
    let polling = Polling::open(&url).await.unwrap();
    assert_eq!(polling.post("6".repeat(17_000)).await.unwrap().0, 413);
    let mut socket = WebSocket::open(&url).await.unwrap();
    socket.write(&confab_tests::raw::text(&"6".repeat(17_000))).await.unwrap();
    assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1009));
    // An answer that the server must buffer: it echoes the namespace.
    let polling = Polling::open(&url).await.unwrap();
    let _ = polling.post(format!("40/{},", "x".repeat(16_200))).await;
    assert_eq!(polling.get().await.unwrap(), (200, "1".into()));
    // After CONNECT the client may send as much as any other client.
    let scene = Scene::new().await.unwrap();
    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let padded = json!({"roomId": scene.room, "content": "x", "padding": "x".repeat(500_000)});
    assert_eq!(polling.emit("message", padded.clone()).await.unwrap()["ok"], true);
    assert_eq!(scene.socket().await.unwrap().emit("message", padded).await.unwrap()["ok"], true);
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_continue_while_unconnected_clients_use_their_share() {
    let server = Embedded::start(&[("CONFAB_MAX_OUTBOX_BYTES", "400000")]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let bystanders = Bystanders::at(&server).await.unwrap();
    for n in 0..20 {
        scene.post(&format!("{n} {}", "x".repeat(1000))).await.unwrap();
    }
    let packet = format!("40/{},", "x".repeat(12_000));
    let mut strangers = Vec::new();
    let mut most = 0.0f64;
    for _ in 0..15 {
        for _ in 0..8 {
            let polling = Polling::open(&server.url()).await.unwrap();
            let _ = polling.post(packet.clone()).await;
            strangers.push(polling);
        }
        most = most.max(value(&server, "confab_outbox_bytes").await);
        let mut socket = scene.socket().await.unwrap();
        let joined: Value = socket.emit("joinRoom", json!({"roomId": scene.room, "last": 20})).await.unwrap();
        assert_eq!((&joined["ok"], joined["messages"].as_array().map(Vec::len)), (&json!(true), Some(20)), "{joined}");
    }
    assert!(most > 200_000.0, "more than half was used: {most}");
    assert!(value(&server, "confab_outbox_closes_total{reason=\"total\"}").await > 0.0);
    bystanders.noticed_nothing().await;
}

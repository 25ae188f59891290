//! The stock client of Rust, rust_socketio: it does not report its transport and does not wait for CONNECT's answer.

use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::stock::{Report, Stock, Transports, bytes};
use serde_json::json;

use super::{CLOSE_LIMIT, Scene};

const ALL: [Transports; 3] = [Transports::Polling, Transports::WebSocket, Transports::Upgrade];

#[tokio::test]
async fn rust_client_works_over_each_transport() {
    let scene = Scene::new().await.unwrap();
    let stock = Stock::rust().unwrap();
    for (round, transports) in ALL.into_iter().enumerate() {
        let socket = stock.connect(&scene.url, &scene.account.token, transports).await.unwrap();
        let joined = socket.emit("joinRoom", json!({"roomId": scene.room})).await.unwrap();
        assert_eq!((&joined["ok"], &joined["lastSeq"]), (&json!(true), &json!(round * 20)), "{joined}");
        let mut acknowledged = Vec::new();
        for n in 0..20 {
            let sent = socket.emit("message", scene.message(format!("{round} {n} ✓"))).await.unwrap();
            acknowledged.push(sent["message"].clone());
        }
        let received = |_: &[Report]| (socket.events("message").len() == 20).then(|| socket.events("message"));
        assert_eq!(socket.until("its own messages", CLOSE_LIMIT, received).await.unwrap(), acknowledged);
        socket.disconnect();
    }
}

#[tokio::test]
async fn rust_client_receives_error_details() {
    let scene = Scene::new().await.unwrap();
    let stock = Stock::rust().unwrap();
    let refused = stock
        .open(&scene.url, json!({"auth": {"token": "garbage"}, "transports": ["websocket"], "reconnection": false}));
    let error = refused.state("error").await.unwrap();
    assert!(error["message"].as_str().is_some_and(|message| message.contains("unauthorized")), "{error}");

    // This client can send bytes only as a whole argument; as such they are not a valid request. With a callback it
    // sends them as an acknowledgement that no request awaits.
    let socket = stock.connect(&scene.url, &scene.account.token, Transports::WebSocket).await.unwrap();
    drop(socket.emit_later("message", vec![bytes(b"raw")]));
    socket.tell("message", vec![bytes(b"raw")]);
    let error = socket.state("error").await.unwrap();
    assert_eq!(error["message"]["code"], "invalid_request", "{error}");
    assert_eq!(socket.emit("message", scene.message("after it")).await.unwrap()["ok"], true);
}

#[tokio::test]
async fn rust_client_reconnects_after_a_crash_and_catches_up() {
    let server = Embedded::start(&[]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let stock = Stock::rust().unwrap();
    for transports in ALL {
        let socket = stock.connect(&scene.url, &scene.account.token, transports).await.unwrap();
        let joined = socket.emit("joinRoom", json!(scene.room)).await.unwrap();
        server.daemon().kill().await.unwrap();
        server.up().await.unwrap();
        let missed = scene.post("missed").await.unwrap();
        socket
            .until("connected again", Duration::from_secs(60), |reports| (connects(reports) == 2).then_some(()))
            .await
            .unwrap();
        let again = socket.emit("joinRoom", json!({"roomId": scene.room, "after": joined["lastSeq"]})).await.unwrap();
        assert_eq!(again["messages"], json!([missed]), "{again}");
    }
}

fn connects(reports: &[Report]) -> usize {
    reports.iter().filter(|report| matches!(report, Report::State(kind, _) if kind == "connect")).count()
}

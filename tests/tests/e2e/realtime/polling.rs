//! Regular long-polling, and the upgrade during traffic.

use std::time::Duration;

use confab_tests::raw::{Client, Polling, WebSocket};
use confab_tests::stock::{Socket, Stock, Transports};
use confab_tests::wait::eventually;
use serde_json::{Value, json};

use super::Scene;
use super::writer::Writer;

#[tokio::test]
async fn payload_has_at_most_sixteen_packets() {
    let scene = Scene::new().await.unwrap();
    let mut client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    assert_eq!(client.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    for n in 1..=50 {
        scene.post(&n.to_string()).await.unwrap();
    }
    for n in 1..=50 {
        assert_eq!(client.event("message").await.unwrap()["seq"], n);
    }
    assert!(client.largest_payload <= 16, "{}", client.largest_payload);
    let answer = client.request(reqwest::Method::POST).body("6").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_during_traffic_loses_and_duplicates_nothing() {
    let scene = Scene::new().await.unwrap();
    let writer = Writer::start(&scene).await.unwrap();
    writer.more(10).await.unwrap();
    let mut sockets = Vec::new();
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        for _ in 0..5 {
            let options = json!({"auth": {"token": scene.account.token}, "transports": ["polling", "websocket"]});
            let socket = stock.open(&scene.url, options);
            socket.state("connect").await.unwrap();
            let joined = socket.emit("joinRoom", json!({"roomId": scene.room, "last": 1})).await.unwrap();
            sockets.push((socket, joined));
        }
    }
    writer.more(50).await.unwrap();
    let history = writer.history(&scene).await.unwrap();
    for (socket, joined) in &sockets {
        exact(socket, joined, &history).await.unwrap();
    }
}

/// Checks that a stock client received the whole history after its join.
async fn exact(socket: &Socket, joined: &Value, history: &[Value]) -> anyhow::Result<()> {
    let expected = &history[joined["lastSeq"].as_u64().unwrap_or_default() as usize..];
    let all = async || (socket.events("message").len() >= expected.len()).then_some(());
    let waited = eventually("every message arrives", Duration::from_secs(20), all).await;
    let received = socket.events("message");
    anyhow::ensure!(received == expected, "received {} instead of {}; {waited:?}", received.len(), expected.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_upgrade_continues_where_polling_stopped() {
    let scene = Scene::new().await.unwrap();
    let writer = Writer::start(&scene).await.unwrap();
    let mut received = Vec::new();
    for _ in 0..10 {
        let mut client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
        let joined = client.emit("joinRoom", json!(scene.room)).await.unwrap();
        let mut events = Vec::new();
        for _ in 0..5 {
            events.push(client.event("message").await.unwrap());
        }
        let mut socket = WebSocket::probe(&scene.url, client.sid()).await.unwrap().unwrap();
        socket.send("2probe").await.unwrap();
        assert_eq!(socket.receive().await.unwrap(), "3probe");
        // Packets of a pending GET still belong to the client, as in stock clients.
        client.poll().await.unwrap();
        events.extend(client.taken_events().into_iter().map(|(_, message)| message));
        // The change of transport and the first event in one write.
        let packets = ["5", "4210[\"leaveRoom\",\"x\"]"].map(confab_tests::raw::text).concat();
        socket.write(&packets).await.unwrap();
        assert_eq!(socket.ack(10).await.unwrap()["ok"], false);
        for _ in 0..5 {
            events.push(socket.event("message").await.unwrap());
        }
        received.push((joined, events));
    }
    let history = writer.history(&scene).await.unwrap();
    for (joined, events) in received {
        let start = joined["lastSeq"].as_u64().unwrap() as usize;
        assert_eq!(events, history[start..start + events.len()]);
    }
}

#[tokio::test]
async fn stock_client_works_with_polling_only() {
    let scene = Scene::new().await.unwrap();
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        let socket = stock.connect(&scene.url, &scene.account.token, Transports::Polling).await.unwrap();
        let joined = socket.emit("joinRoom", json!(scene.room)).await.unwrap();
        let sends =
            (0..100).map(|n| socket.emit_later("message", vec![scene.message(n.to_string())])).collect::<Vec<_>>();
        for (n, ack) in sends.into_iter().enumerate() {
            assert_eq!(ack.await.unwrap()[0]["message"]["content"], n.to_string());
        }
        let history = scene.api.history(&scene.room, &scene.account, 200).await.unwrap();
        exact(&socket, &joined, &history).await.unwrap();
    }
}

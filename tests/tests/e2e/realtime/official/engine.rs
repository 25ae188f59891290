//! Engine.IO: sessions, packets, pings and upgrades.

use std::time::Duration;

use confab_tests::raw::{Client, Polling, Refused, WebSocket, binary, event, text};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DATA;
use crate::realtime::{CLOSE_LIMIT, Scene, hasty};

everywhere!(
    websocket_requires_version_and_transport,
    every_packet_of_a_payload_is_answered,
    payload_may_contain_text_and_bytes,
    text_and_bytes_over_websocket,
    cancelled_get_loses_nothing,
    waiting_get_ends_when_the_client_closes,
    probe_ends_the_waiting_get,
    upgrade_may_begin_while_a_get_waits,
);

impl Scene {
    async fn polling(&self) -> anyhow::Result<Polling> {
        Polling::connect(&self.url, &self.account.token).await
    }
}

/// Opens a WebSocket for a polling session, up to `3probe`.
async fn probed(scene: &Scene, client: &Polling) -> anyhow::Result<WebSocket> {
    let mut socket =
        WebSocket::probe(&scene.url, client.sid()).await?.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    socket.send("2probe").await?;
    anyhow::ensure!(socket.receive().await? == "3probe");
    Ok(socket)
}

async fn websocket_requires_version_and_transport(scene: Scene) {
    for (query, code) in [
        ("transport=websocket", 5),
        ("EIO=abc&transport=websocket", 5),
        ("EIO=3&transport=websocket", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
    ] {
        let Err(Refused(status, body)) = WebSocket::attempt(&scene.url, query, &[]).await.unwrap() else {
            panic!("{query} was taken");
        };
        assert_eq!((status, &body["code"]), (400, &json!(code)), "{query}");
    }
}

async fn every_packet_of_a_payload_is_answered(scene: Scene) {
    let mut client = scene.polling().await.unwrap();
    for contents in [vec!["alone"], vec!["first", "second", "third"]] {
        let messages = contents.iter().map(|content| scene.message(*content)).collect::<Vec<_>>();
        let numbers = client.emit_all("message", &messages).await.unwrap();
        for (content, number) in contents.into_iter().zip(numbers) {
            assert_eq!(client.ack(number).await.unwrap()["message"]["content"], content);
        }
    }
}

async fn payload_may_contain_text_and_bytes(scene: Scene) {
    let mut client = scene.polling().await.unwrap();
    let packets =
        [event("message", &scene.message("hello"), 1), format!("451-2{}", scene.upload()), "bAQIDBA==".into()];
    client.send_all(&packets).await.unwrap();
    assert_eq!(client.ack(1).await.unwrap()["message"]["content"], "hello");
    scene.has_data(&client.ack(2).await.unwrap()["file"]).await;
}

async fn text_and_bytes_over_websocket(scene: Scene) {
    let mut socket = scene.socket().await.unwrap();
    assert_eq!(socket.emit("message", scene.message("hello")).await.unwrap()["message"]["content"], "hello");
    socket.write(&[text(&format!("451-7{}", scene.upload())), binary(&DATA)].concat()).await.unwrap();
    scene.has_data(&socket.ack(7).await.unwrap()["file"]).await;
}

#[tokio::test]
async fn waiting_get_receives_pings() {
    let scene = Scene::at(hasty().await).await.unwrap();
    let client = scene.polling().await.unwrap();
    for _ in 0..3 {
        let (status, payload) = client.get().await.unwrap();
        // Two pings have arrived if the pong was delayed.
        assert!(status == 200 && payload.split('\u{1e}').all(|packet| packet == "2"), "{status} {payload}");
        assert_eq!(client.post("3").await.unwrap(), (200, json!("ok")));
    }
}

async fn cancelled_get_loses_nothing(scene: Scene) {
    let mut client = scene.polling().await.unwrap();
    for number in 1..=5 {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={}&t=cancelled-{number}", client.sid());
        // Not by an HTTP client, which would close its connection some time after the cancellation, and acknowledge an
        // answer in between.
        let host = scene.url.trim_start_matches("http://");
        let mut cancelled = TcpStream::connect(host).await.unwrap();
        cancelled.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        // In most rounds the server has read it by then.
        let _ = timeout(Duration::from_millis(20), cancelled.read_u8()).await;
        drop(cancelled);
        client.send_all(&[event("message", &scene.message("meanwhile"), number)]).await.unwrap();
        let payload = scene.api.request(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        assert!(payload.starts_with(&format!("43{number}[")), "{payload}");
    }
}

async fn waiting_get_ends_when_the_client_closes(scene: Scene) {
    // The POST may arrive first, and then no GET waits.
    let waited = async || {
        let client = scene.polling().await.ok()?;
        let (got, posted) = tokio::join!(client.get(), client.post("1"));
        assert_eq!(posted.unwrap(), (200, json!("ok")));
        assert_eq!(client.get().await.unwrap().0, 400);
        (got.unwrap() == (200, "6".into())).then_some(())
    };
    eventually("the GET ends with a noop", CLOSE_LIMIT, waited).await.unwrap();
}

async fn probe_ends_the_waiting_get(scene: Scene) {
    let client = scene.polling().await.unwrap();
    let mut socket = probed(&scene, &client).await.unwrap();
    assert_eq!(client.get().await.unwrap(), (200, "6".into()));
    socket.send("5").await.unwrap();
    assert_eq!(socket.emit("message", scene.message("upgraded")).await.unwrap()["ok"], true);
}

async fn upgrade_may_begin_while_a_get_waits(scene: Scene) {
    // The GET may arrive last, and then the session does not poll any more.
    let waited = async || {
        let client = scene.polling().await.ok()?;
        let upgrading = async {
            let mut socket = probed(&scene, &client).await?;
            socket.send("5").await?;
            socket.emit("message", scene.message("upgraded")).await
        };
        let (got, sent) = tokio::join!(client.get(), upgrading);
        assert_eq!(sent.unwrap()["ok"], true);
        (got.unwrap() == (200, "6".into())).then_some(())
    };
    eventually("the GET ends with a noop", CLOSE_LIMIT, waited).await.unwrap();
}

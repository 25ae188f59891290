//! Malformed input over long-polling and during the upgrade.

use confab_tests::raw::{Client, Polling, Refused, WebSocket, connect};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene};
use crate::world;

#[tokio::test]
async fn malformed_payload_ends_only_its_own_session() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let bodies: [&[u8]; 16] = [
        b"",
        b"abc",
        b"hello",
        b"\x1e",
        b"\x1e\x1e\x1e",
        b"9",
        b"4",
        b"42[",
        b"6\x1e",
        b"\xff\xfe\xfd",
        b"42[\"\xe4\xb8",
        b"b!!!",
        b"bAAA",
        b"bAAAA",
        b"451-[\"message\",{}]\x1e42[\"x\"]",
        b"d=42[\"message\"]",
    ];
    for body in bodies {
        let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
        assert_eq!(client.post(body).await.unwrap(), (400, json!({"code": 3, "message": "Bad request"})), "{body:?}");
        let (status, gone) = client.get().await.unwrap();
        assert_eq!(
            (status, serde_json::from_str::<Value>(&gone).unwrap()["code"].clone()),
            (400, json!(1)),
            "{body:?}"
        );
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn payload_above_the_limit_is_too_large() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    for size in [1_114_113, 8_000_000] {
        let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
        let answer = client.request(Method::POST).body("x".repeat(size)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(client.get().await.unwrap().0, 400);
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn two_concurrent_gets_end_the_session() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    // One GET waits; the second one is rejected, and the first one returns the end of the session.
    let (one, other) = tokio::join!(client.get(), client.get());
    let mut answers = [one.unwrap(), other.unwrap()];
    answers.sort();
    assert_eq!((answers[0].0, &*answers[0].1, answers[1].0), (200, "1", 400));
    assert_eq!(client.get().await.unwrap().0, 400);
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn polling_ends_after_the_upgrade() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let mut socket = upgrade(&scene, &client).await.unwrap();
    assert_eq!(socket.emit("message", scene.message("upgraded")).await.unwrap()["ok"], true);
    assert_eq!(client.get().await.unwrap().0, 400);
    assert_eq!(client.post("3").await.unwrap().0, 400);
    let again = WebSocket::probe(&scene.url, client.sid()).await.unwrap();
    assert!(matches!(again, Err(Refused(400, body)) if body["code"] == 3));
    assert_eq!(socket.emit("message", scene.message("still here")).await.unwrap()["message"]["seq"], 2);
    // Nor can a session that began as a WebSocket be polled or upgraded.
    let mut direct = scene.socket().await.unwrap();
    let sid = direct.open["sid"].as_str().unwrap().to_string();
    let again = WebSocket::probe(&scene.url, &sid).await.unwrap();
    assert!(matches!(again, Err(Refused(400, body)) if body["code"] == 3));
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(scene.api.send(scene.api.request(Method::GET, &path)).await.unwrap().status, 400);
    assert_eq!(direct.emit("message", scene.message("direct")).await.unwrap()["ok"], true);
    bystanders.noticed_nothing().await;
}

async fn upgrade(scene: &Scene, client: &Polling) -> anyhow::Result<WebSocket> {
    let mut socket =
        WebSocket::probe(&scene.url, client.sid()).await?.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    socket.send("2probe").await?;
    anyhow::ensure!(socket.receive().await? == "3probe");
    socket.send("5").await?;
    Ok(socket)
}

#[tokio::test]
async fn failed_probe_leaves_the_session_polling() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    for packet in ["5", "2", "3probe", "42[\"message\",{}]", "", "1"] {
        let probe = async || WebSocket::probe(&scene.url, client.sid()).await.ok()?.ok();
        let mut socket = confab_tests::wait::eventually("a probe is accepted", CLOSE_LIMIT, probe).await.unwrap();
        socket.send(packet).await.unwrap();
        socket.closed(CLOSE_LIMIT).await.unwrap();
        assert_eq!(
            client.emit("message", scene.message(packet.len().to_string())).await.unwrap()["ok"],
            true,
            "{packet}"
        );
    }
    // A probe that never continues: polling works meanwhile, and a second probe is rejected.
    let mut stalled = WebSocket::probe(&scene.url, client.sid()).await.unwrap().unwrap();
    stalled.send("2probe").await.unwrap();
    assert_eq!(stalled.receive().await.unwrap(), "3probe");
    assert!(WebSocket::probe(&scene.url, client.sid()).await.unwrap().is_err());
    assert_eq!(client.emit("message", scene.message("meanwhile")).await.unwrap()["ok"], true);
    assert_eq!(client.poll().await.unwrap(), ["6"]);
    stalled.closed(3 * CLOSE_LIMIT).await.unwrap();
    // Afterwards another probe can succeed.
    let mut socket = upgrade(&scene, &client).await.unwrap();
    let ack = socket.emit("message", scene.message("upgraded")).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn session_that_sends_close_is_closed() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    socket.send("1").await.unwrap();
    socket.closed(CLOSE_LIMIT).await.unwrap();
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    assert_eq!(client.post("1").await.unwrap(), (200, json!("ok")));
    assert_eq!(client.get().await.unwrap().0, 400);
    // A client that disconnects before the answer to CONNECT has no session to return to.
    let mut socket = WebSocket::open(&scene.url).await.unwrap();
    socket.send("41").await.unwrap();
    socket.closed(CLOSE_LIMIT).await.unwrap();
    let mut twice = WebSocket::open(&scene.url).await.unwrap();
    let flight = [connect(&scene.account.token), "1".into(), connect("x")]
        .map(|packet| confab_tests::raw::text(&packet))
        .concat();
    twice.write(&flight).await.unwrap();
    twice.closed(CLOSE_LIMIT).await.unwrap();
}

//! Socket.IO: CONNECT, DISCONNECT, events and their acknowledgements.

use confab_tests::raw::{Client, Polling, WebSocket, binary, connect, event, text};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::DATA;
use crate::realtime::{CLOSE_LIMIT, Scene, hasty};

everywhere!(
    connect_is_answered_with_an_id,
    another_namespace_is_rejected_and_the_socket_continues,
    event_without_acknowledgement_is_delivered,
    acknowledgement_has_the_id_of_its_event,
    polling_client_may_connect_again_after_disconnect,
    another_token_requires_another_session,
);

async fn connect_is_answered_with_an_id(scene: Scene) {
    let mut socket = WebSocket::open(&scene.url).await.unwrap();
    let answer = socket.enter(&scene.account.token).await.unwrap();
    assert!(answer["sid"].is_string());
    assert_eq!(answer, json!({"sid": answer["sid"]}));
}

async fn another_namespace_is_rejected_and_the_socket_continues(scene: Scene) {
    let mut socket = scene.socket().await.unwrap();
    let refusal = json!({"message": "Invalid namespace", "data": {"code": "not_found", "status": 404}});
    for (packet, begins) in
        [("40/random", "44/random,"), ("40/custom,", "44/custom,"), (r#"40/custom,{"token":"abc"}"#, "44/custom,")]
    {
        socket.send(packet).await.unwrap();
        let refused = socket.receive().await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(refused.strip_prefix(begins).unwrap()).unwrap(), refusal, "{packet}");
        socket.send("41/custom").await.unwrap();
        assert_eq!(socket.emit("message", scene.message("to the main namespace")).await.unwrap()["ok"], true);
    }
}

async fn event_without_acknowledgement_is_delivered(scene: Scene) {
    let mut socket = scene.member().await.unwrap();
    socket.send(&format!("42{}", json!(["message", scene.message("hello")]))).await.unwrap();
    assert_eq!(socket.event("message").await.unwrap()["content"], "hello");
    socket.write(&[text(&format!("451-{}", scene.upload())), binary(&DATA)].concat()).await.unwrap();
    scene.has_data(&socket.event("fileUpload").await.unwrap()["files"][0]).await;
    assert_eq!(socket.taken_events(), []);
}

async fn acknowledgement_has_the_id_of_its_event(scene: Scene) {
    let mut socket = scene.socket().await.unwrap();
    socket.send(&event("message", &scene.message("hello"), 456)).await.unwrap();
    assert_eq!(socket.ack(456).await.unwrap()["message"]["content"], "hello");
    // The second attachment is a field that is ignored.
    let mut upload = scene.upload();
    upload[1]["preview"] = json!({"_placeholder": true, "num": 1});
    socket.write(&[text(&format!("452-789{upload}")), binary(&DATA), binary(&[5, 6])].concat()).await.unwrap();
    scene.has_data(&socket.ack(789).await.unwrap()["file"]).await;
}

#[tokio::test]
async fn pings_continue_after_disconnect_and_client_may_reconnect() {
    let scene = Scene::at(hasty().await).await.unwrap();
    let (mut socket, mut other) = (scene.member().await.unwrap(), scene.member().await.unwrap());
    socket.send("41").await.unwrap();
    // The answer shows that DISCONNECT has been read.
    socket.send("2probe").await.unwrap();
    assert_eq!(socket.receive().await.unwrap(), "3probe");
    assert_eq!(other.emit("message", scene.message("not delivered")).await.unwrap()["ok"], true);
    let before = socket.pings;
    let pinged = async {
        while socket.pings < before + 3 {
            socket.listen().await?;
        }
        anyhow::Ok(())
    };
    timeout(CLOSE_LIMIT, pinged).await.unwrap().unwrap();
    assert_eq!(socket.taken_events(), []);

    socket.enter(&scene.account.token).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["lastSeq"], 1);
    let sent = other.emit("message", scene.message("delivered")).await.unwrap();
    assert_eq!(socket.event("message").await.unwrap(), sent["message"]);

    // Without CONNECT there are no events.
    socket.send("41").await.unwrap();
    socket.send(&event("message", &scene.message("too late"), 1)).await.unwrap();
    assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1002));
}

async fn polling_client_may_connect_again_after_disconnect(scene: Scene) {
    let mut client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    for round in 1..=3 {
        client.send_all(&["41".into(), connect(&scene.account.token)]).await.unwrap();
        assert_eq!(client.emit("message", scene.message("again")).await.unwrap()["message"]["seq"], round);
    }
}

async fn another_token_requires_another_session(scene: Scene) {
    let stranger = scene.api.signup().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    socket.write(&["41", &connect(&stranger.token)].map(text).concat()).await.unwrap();
    // Closed at the transport, so that a stock client reconnects on its own.
    assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1001));

    let mut socket = scene.socket().await.unwrap();
    socket.write(&["41", &connect("garbage")].map(text).concat()).await.unwrap();
    assert_eq!(socket.refused().await.unwrap()["data"], json!({"code": "unauthorized", "status": 401}));
    socket.closed(CLOSE_LIMIT).await.unwrap();
}

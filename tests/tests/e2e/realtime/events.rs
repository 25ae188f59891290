//! Valid events: their acknowledgements, repeats, and their order.

use std::collections::HashSet;

use confab_tests::api::{repeated, unique};
use confab_tests::raw::{Client, Polling, connect};
use serde_json::{Value, json};

use super::{Scene, fails};

#[tokio::test]
async fn message_is_equal_in_acknowledgement_event_and_history() {
    let scene = Scene::new().await.unwrap();
    let (mut speaker, mut listener, mut outsider) =
        (scene.member().await.unwrap(), scene.member().await.unwrap(), scene.socket().await.unwrap());
    let sent = json!({"roomId": scene.room, "content": "Grüße, 世界 🌍", "clientMessageId": "c-1", "seq": 99, "id": "mine", "sender": {}, "future": [1]});
    let ack = speaker.emit("message", sent).await.unwrap();
    let message = ack["message"].clone();
    assert_eq!(ack, json!({"ok": true, "message": message, "duplicate": false}));
    let expected = json!({
        "id": message["id"], "roomId": scene.room, "seq": 1, "type": "message",
        "sender": {"id": scene.account.id, "username": scene.account.username},
        "content": "Grüße, 世界 🌍", "files": [], "clientMessageId": "c-1", "createdAt": message["createdAt"],
        "revision": 1, "editedAt": null, "deleted": false, "deletedBy": null, "pinned": false, "reactions": [], "data": {}, "ordinal": 1,
    });
    assert_eq!(message, expected);
    assert_eq!(speaker.event("message").await.unwrap(), message);
    assert_eq!(listener.event("message").await.unwrap(), message);
    assert_eq!(scene.api.history(&scene.room, &scene.account, 50).await.unwrap(), [message]);
    // A client outside the room may post there, but receives nothing.
    let posted = outsider.emit("message", scene.message("from outside")).await.unwrap();
    assert_eq!(listener.event("message").await.unwrap(), posted["message"]);
    assert_eq!(outsider.emit("leaveRoom", json!({"roomId": scene.room})).await.unwrap(), json!({"ok": true}));
    assert_eq!(outsider.taken_events(), []);
}

#[tokio::test]
async fn repeat_returns_the_first_event() {
    let scene = Scene::new().await.unwrap();
    let (mut one, mut other) = (scene.member().await.unwrap(), scene.socket().await.unwrap());
    let id = unique("send");
    let send = |content: &str| json!({"roomId": scene.room, "content": content, "clientMessageId": id});
    let first = one.emit("message", send("first")).await.unwrap();
    assert_eq!(first["duplicate"], false);
    for socket in [&mut one, &mut other] {
        let again = socket.emit("message", send("another text")).await.unwrap();
        assert_eq!(again, json!({"ok": true, "message": first["message"], "duplicate": true}));
    }
    let rest = scene.api.post("/api/messages", &scene.account, send("by REST")).await.unwrap();
    assert_eq!((rest.status, rest.body), (200, repeated(&first["message"])));
    // Several events in one write.
    let numbers = [
        one.emit_later("message", &json!({"roomId": scene.room, "content": "x", "clientMessageId": "twice"}))
            .await
            .unwrap(),
        one.emit_later("message", &json!({"roomId": scene.room, "content": "y", "clientMessageId": "twice"}))
            .await
            .unwrap(),
    ];
    let (first, second) = (one.ack(numbers[0]).await.unwrap(), one.ack(numbers[1]).await.unwrap());
    assert_eq!(
        (&first["message"], &first["duplicate"], &second["duplicate"]),
        (&second["message"], &json!(false), &json!(true))
    );
    // The same id from another user, or in another room, is another message.
    let stranger = scene.api.signup().await.unwrap();
    let theirs = scene.api.post("/api/messages", &stranger, send("theirs")).await.unwrap();
    assert_eq!((theirs.status, &theirs.body["seq"]), (201, &json!(3)));
    let room = scene.api.room(&scene.account).await.unwrap();
    let elsewhere = json!({"roomId": room, "content": "elsewhere", "clientMessageId": id});
    assert_eq!(one.emit("message", elsewhere).await.unwrap()["duplicate"], false);
    assert_eq!(scene.api.history(&scene.room, &scene.account, 50).await.unwrap().len(), 3);
}

#[tokio::test]
async fn client_message_ids_are_one_to_128_bytes() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let send = |id: Value| json!({"roomId": scene.room, "content": "x", "clientMessageId": id});
    for bad in [json!(""), json!("x".repeat(129)), json!("é".repeat(65)), json!("a\0b"), json!(7), json!({})] {
        fails(&socket.emit("message", send(bad)).await.unwrap(), 400, "invalid_request");
    }
    for good in [json!("x".repeat(128)), json!("é".repeat(64)), json!(" "), json!("\u{1}\"\\"), Value::Null] {
        let ack = socket.emit("message", send(good.clone())).await.unwrap();
        assert_eq!((&ack["ok"], &ack["message"]["clientMessageId"]), (&json!(true), &good), "{ack}");
    }
}

#[tokio::test]
async fn five_hundred_sends_at_once_keep_their_order() {
    let scene = Scene::new().await.unwrap();
    let (mut speaker, mut listener) = (scene.member().await.unwrap(), scene.member().await.unwrap());
    let mut numbers = Vec::new();
    for n in 0..500 {
        numbers.push(speaker.emit_later("message", &scene.message(n.to_string())).await.unwrap());
    }
    for (n, number) in numbers.into_iter().enumerate() {
        let ack = speaker.ack(number).await.unwrap();
        assert_eq!(
            (&ack["message"]["seq"], &ack["message"]["content"]),
            (&json!(n + 1), &json!(n.to_string())),
            "{ack}"
        );
    }
    for n in 0..500 {
        for socket in [&mut speaker, &mut listener] {
            let received = socket.event("message").await.unwrap();
            assert_eq!((&received["seq"], &received["content"]), (&json!(n + 1), &json!(n.to_string())));
        }
    }
}

#[tokio::test]
async fn five_hundred_sends_by_polling_alone_keep_their_order() {
    let scene = Scene::new().await.unwrap();
    let mut speaker = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    assert_eq!(speaker.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let mut numbers = Vec::new();
    for chunk in (0..500).collect::<Vec<_>>().chunks(50) {
        let messages = chunk.iter().map(|n| scene.message(n.to_string())).collect::<Vec<_>>();
        numbers.extend(speaker.emit_all("message", &messages).await.unwrap());
    }
    for (n, number) in numbers.into_iter().enumerate() {
        let ack = speaker.ack(number).await.unwrap();
        assert_eq!(
            (&ack["message"]["seq"], &ack["message"]["content"]),
            (&json!(n + 1), &json!(n.to_string())),
            "{ack}"
        );
    }
    for n in 0..500 {
        let received = speaker.event("message").await.unwrap();
        assert_eq!((&received["seq"], &received["content"]), (&json!(n + 1), &json!(n.to_string())));
    }
    assert!((2..=16).contains(&speaker.largest_payload), "{} packets in a payload", speaker.largest_payload);
}

#[tokio::test]
async fn events_in_different_rooms_do_not_wait_for_each_other() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..10 {
        rooms.push(scene.api.room(&scene.account).await.unwrap());
    }
    let mut sends = Vec::new();
    for round in 0..10 {
        for room in &rooms {
            let join = socket.emit_later("joinRoom", &json!({"roomId": room, "last": 200})).await.unwrap();
            let message = json!({"roomId": room, "content": round.to_string()});
            sends.push((round, join, socket.emit_later("message", &message).await.unwrap()));
        }
    }
    let mut ids = HashSet::new();
    for (round, join, send) in sends {
        let (joined, sent) = (socket.ack(join).await.unwrap(), socket.ack(send).await.unwrap());
        // The join precedes the send that followed it.
        assert_eq!((&joined["lastSeq"], &sent["message"]["seq"]), (&json!(round), &json!(round + 1)));
        assert!(ids.insert(sent["message"]["id"].to_string()));
    }
}

#[tokio::test]
async fn polling_client_may_send_an_event_with_its_connect() {
    let scene = Scene::new().await.unwrap();
    let mut client = Polling::open(&scene.url).await.unwrap();
    client.send_all(&[connect(&scene.account.token)]).await.unwrap();
    assert_eq!(client.emit("message", scene.message("first")).await.unwrap()["message"]["seq"], 1);
}

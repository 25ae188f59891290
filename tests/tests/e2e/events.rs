//! The document `docs/asyncapi.json`: every message that it lists occurs. Every other test checks that no other message
//! occurs, see `confab_tests::contract::events`.

use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::contract::events;
use confab_tests::embedded::Embedded;
use confab_tests::stock::{Socket, Stock, Transports, bytes};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Time limit for a message to arrive.
const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

async fn receives(socket: &Socket, name: &str) -> Value {
    socket.until(name, DELIVERY_LIMIT, |_| socket.events(name).first().cloned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_message_occurs() {
    let server = Embedded::start(&[]).await.unwrap();
    let api = Api::new(server.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let room = api.room(&ada).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let socket =
        stock.open(&api.url, json!({"auth": {"token": ada.token, "recovery": true}, "transports": ["websocket"]}));
    socket.state("connect").await.unwrap();

    for argument in
        [json!(room), json!({"roomId": room, "after": 0}), json!({"roomId": room, "last": 5}), json!("nowhere")]
    {
        socket.emit("joinRoom", argument).await.unwrap();
    }
    socket.emit("message", json!({"roomId": room, "content": "Milk first?"})).await.unwrap();
    socket.emit("message", json!({"roomId": room, "content": ""})).await.unwrap();
    let of_message = |rest: Value| {
        let mut argument = json!({"roomId": room, "seq": 1});
        argument.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        argument
    };
    for (event, rest) in [
        ("edit", json!({"content": "Milk last."})),
        ("edit", json!({})),
        ("pin", json!({"on": true})),
        ("pin", json!({"on": true, "seq": 99})),
        ("react", json!({"name": "👍", "on": true})),
        ("react", json!({"name": "👍", "on": true, "seq": 99})),
        ("remove", json!({})),
        ("read", json!({"seq": 3})),
        ("typing", json!({"on": true})),
        ("typing", json!({})),
        ("remove", json!({"seq": 99})),
    ] {
        socket.emit(event, of_message(rest)).await.unwrap();
    }
    socket.emit("joinRoom", json!({"roomId": room, "after": 1, "from": 1})).await.unwrap();
    let file = json!({"roomId": room, "name": "a.txt", "data": bytes(b"hello")});
    socket.emit("fileUpload", file).await.unwrap();
    socket.emit("fileUpload", json!({"roomId": room})).await.unwrap();
    socket.emit("noSuchEvent", json!({})).await.unwrap();
    socket.emit("auth", json!({"token": ada.token})).await.unwrap();
    socket.emit("auth", json!({"token": bob.token})).await.unwrap();
    socket.tell("message", vec![json!({"roomId": "nowhere", "content": "x"})]);
    let path = format!("/api/rooms/{room}");
    api.call(Method::PATCH, &path, Some(&ada), Some(json!({"description": "Green"})))
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    let member = format!("{path}/members/{}", bob.id);
    api.call(Method::PUT, &member, Some(&ada), None).await.unwrap().expect(201).unwrap();
    api.call(Method::DELETE, &member, Some(&ada), None).await.unwrap().expect(204).unwrap();
    let other = api.room(&ada).await.unwrap();
    socket.emit("joinRoom", json!(other)).await.unwrap();
    socket.emit("leaveRoom", json!(other)).await.unwrap();
    socket.emit("leaveRoom", json!(7)).await.unwrap();
    receives(&socket, "read").await;
    api.call(Method::DELETE, &path, Some(&ada), None).await.unwrap().expect(204).unwrap();
    for name in [
        "session",
        "message",
        "messageUpdated",
        "messageDeleted",
        "reaction",
        "fileUpload",
        "read",
        "unread",
        "typing",
        "error",
        "memberJoined",
        "memberLeft",
        "roomUpdated",
        "roomDeleted",
    ] {
        receives(&socket, name).await;
    }
    let leaver = stock.connect(&api.url, &bob.token, Transports::WebSocket).await.unwrap();
    api.post("/api/auth/logout", &bob, Value::Null).await.unwrap().expect(200).unwrap();
    receives(&leaver, "sessionEnded").await;
    assert!(server.daemon().signal(Signal::TERM));
    receives(&socket, "serverGoingAway").await;

    // Only the server checks messages from clients.
    let said = [
        "joinRoom",
        "leaveRoom",
        "auth",
        "sendMessage",
        "shareFile",
        "edit",
        "remove",
        "pin",
        "react",
        "markRead",
        "type",
    ];
    let (all, seen) = events::all_and_seen();
    let missing = all.iter().filter(|name| !said.contains(&name.as_str()) && !seen.contains(*name)).collect::<Vec<_>>();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

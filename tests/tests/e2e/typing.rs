//! Typing over two gateways: who sees it, and what ends it.

use std::time::Duration;

use confab_tests::api::unique;
use confab_tests::stock::{Socket, Stock, Transports};
use serde_json::{Value, json};

use crate::changes::{Scene, at_both_ends};

const DELIVERY_LIMIT: Duration = Duration::from_secs(20);
/// The gateway passes on one notice in 3 s for a user and room.
const NEXT_NOTICE: Duration = Duration::from_millis(3100);

at_both_ends!(
    the_room_sees_who_types_until_the_user_stops,
    a_message_ends_it_over_any_gateway,
    the_end_of_a_socket_ends_it,
    strangers_type_in_no_private_room,
);

/// Waits for the event number `number` of the socket.
async fn shown(socket: &Socket, number: usize) -> Value {
    socket.until("typing", DELIVERY_LIMIT, |_| socket.events("typing").get(number - 1).cloned()).await.unwrap()
}

async fn types(socket: &Socket, room: &str, on: bool) {
    assert_eq!(socket.emit("typing", json!({"roomId": room, "on": on})).await.unwrap(), json!({"ok": true}));
}

/// The author's socket at one gateway, and the reader's at the other, in the room.
async fn two(scene: &Scene) -> (Socket, Socket) {
    let stock = Stock::javascript().unwrap();
    let author = stock.connect(&scene.one.url, &scene.author.token, Transports::WebSocket).await.unwrap();
    let reader = stock.connect(&scene.other.url, &scene.reader.token, Transports::WebSocket).await.unwrap();
    for socket in [&author, &reader] {
        assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    }
    (author, reader)
}

async fn the_room_sees_who_types_until_the_user_stops(scene: Scene) {
    let (author, reader) = two(&scene).await;
    types(&author, &scene.room, true).await;
    types(&author, &scene.room, true).await;
    types(&author, &scene.room, false).await;
    let event = |on| {
        let user = json!({"id": scene.author.id, "username": scene.author.username});
        json!({"roomId": scene.room, "user": user, "on": on, "expiresIn": 6000})
    };
    assert_eq!((shown(&reader, 1).await, shown(&reader, 2).await), (event(true), event(false)));
    types(&author, &scene.room, true).await;
    tokio::time::sleep(NEXT_NOTICE).await;
    types(&author, &scene.room, true).await;
    assert_eq!(shown(&reader, 3).await, event(true), "the notice within 3 s was not passed on");
    assert_eq!(author.emit("leaveRoom", json!(scene.room)).await.unwrap(), json!({"ok": true}));
    assert_eq!(shown(&reader, 4).await, event(false));
    for refused in [json!({"roomId": scene.room}), json!({"roomId": "x", "on": true})] {
        assert_eq!(author.emit("typing", refused).await.unwrap()["error"]["code"], "invalid_request");
    }
}

async fn a_message_ends_it_over_any_gateway(scene: Scene) {
    let (author, reader) = two(&scene).await;
    types(&author, &scene.room, true).await;
    assert_eq!(shown(&reader, 1).await["on"], true);
    let post = json!({"roomId": scene.room, "content": "by REST"});
    scene.other.post("/api/messages", &scene.author, post).await.unwrap().expect(201).unwrap();
    assert_eq!(shown(&reader, 2).await["on"], false);
    tokio::time::sleep(NEXT_NOTICE).await;
    types(&author, &scene.room, true).await;
    assert_eq!(shown(&reader, 3).await["on"], true);
    author.emit("message", json!({"roomId": scene.room, "content": "by socket"})).await.unwrap();
    assert_eq!(shown(&reader, 4).await["on"], false);
}

async fn the_end_of_a_socket_ends_it(scene: Scene) {
    let (author, reader) = two(&scene).await;
    types(&author, &scene.room, true).await;
    assert_eq!(shown(&reader, 1).await["on"], true);
    author.disconnect();
    assert_eq!(shown(&reader, 2).await["on"], false);
}

async fn strangers_type_in_no_private_room(scene: Scene) {
    let (author, reader) = two(&scene).await;
    let new = json!({"name": unique("hidden"), "visibility": "private"});
    let hidden = scene.one.post("/api/rooms", &scene.author, new).await.unwrap().expect(201).unwrap();
    let hidden = hidden["id"].as_str().unwrap();
    for on in [true, false] {
        let to_hidden = reader.emit("typing", json!({"roomId": hidden, "on": on})).await.unwrap();
        let nowhere = json!({"roomId": "01933c1e-8c2b-7b3a-9a55-0c6f5b2d7e11", "on": on});
        assert_eq!(to_hidden, reader.emit("typing", nowhere).await.unwrap(), "equal words");
        assert_eq!(to_hidden["error"]["status"], 404);
    }
    // The author may type there without a join, and sees only rooms that the socket has joined.
    types(&author, hidden, true).await;
    types(&reader, &scene.room, true).await;
    assert_eq!(shown(&author, 1).await["roomId"], scene.room);
    assert_eq!(author.events("typing").len(), 1);
}

//! Bounds on what a client may make its gateway hold.

use serde_json::json;

use super::*;
use crate::chat::request::Request;
use crate::chat::testing::{World, address, connect};
use crate::chat::work::next;
use crate::testing::services::ROOM;
use crate::testing::{bus, eventually};
use axum::http::{HeaderMap, HeaderValue};
use confab_socketio::Transport;
use confab_socketio::outbox::Close;
use tokio::time::timeout;

#[tokio::test]
async fn backpressure_stops_reading() {
    let world = World::with(bus(), &["--max-events-per-second", "0"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    client.received.clear();
    let mut asked = 0;
    while !client.socket.client.is_paused() {
        client.emit(&format!("42{asked}[\"leaveRoom\",\"{}\"]", Uuid::now_v7()));
        asked += 1;
        assert!(asked < 50_000, "everything is answered, although nothing is read");
        tokio::task::yield_now().await;
    }
    // No event was dropped, either.
    eventually(|| {
        client.read_frames();
        client.received.len() == asked
    })
    .await;
    assert!(!client.socket.client.is_paused());
}

#[tokio::test]
async fn few_sends_of_a_client_are_under_way_at_once_however_many_rooms_they_go_to() {
    let world = World::new(bus()).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    let (socket, rooms) = (&client.socket, (0..200).map(|_| Uuid::now_v7()).collect::<Vec<_>>());
    for room in &rooms {
        for name in ["message", "message", "leaveRoom"] {
            world.server.receive(socket, &format!(r#"42["{name}",{{"roomId":"{room}","content":"x"}}]"#)).unwrap();
        }
    }
    let next = |room: &Uuid| next(socket, *room);
    let mut turns = Vec::new();
    for room in &rooms[..MAX_SENDS / 2] {
        let (events, turn) = next(room).await.unwrap();
        assert_eq!(events.len(), 2, "what waits in one room goes together");
        turns.push(turn);
    }
    let mut waiting = Box::pin(next(&rooms[100]));
    assert!(futures::poll!(&mut waiting).is_pending());
    // Requests that do not go to the log do not wait for it.
    let (events, turn) = next(&rooms[0]).await.unwrap();
    assert!(matches!(events[0].request, Request::Leave) && turn.is_none());
    turns.pop();
    assert_eq!(waiting.await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn requests_of_a_client_count_until_they_are_done() {
    let world = World::new(bus()).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    let socket = &client.socket;
    client.emit(&format!(r#"42["message",{{"roomId":"{}","content":"{}"}}]"#, Uuid::now_v7(), "x".repeat(10_000)));
    assert!(socket.outbox.bytes() > 10_000);
    // Only the refusal is left.
    eventually(|| socket.outbox.bytes() < 1000).await;
    world.server.receive(socket, r#"451-["message",{}]"#).unwrap();
    assert!(world.server.receive_binary(socket, vec![0; 2_000_000].into()).is_err());
    world.server.close(socket, Ending::Malformed);
    socket.outbox.take_some(9, usize::MAX);
    assert_eq!(socket.outbox.bytes(), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_before_connect_is_not_queued() {
    let world = World::new(bus()).await;
    let socket = world.client().socket;
    let _ = world.server.receive(&socket, &format!("40/{},", "x".repeat(17_000)));
    assert_eq!(socket.outbox.closing(), Some(Close::Now));
}

#[tokio::test]
async fn a_connected_client_may_ask_for_unknown_namespaces_as_often_as_for_anything() {
    let world = World::with(bus(), &["--max-events-per-second", "10"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    (0..100).for_each(|_| client.emit("40/x,"));
    for _ in 0..10 {
        client.read_frames();
    }
    let answered = client.received.iter().filter(|received| received.starts_with("44/x,")).count();
    assert!((10..40).contains(&answered), "{answered}");
    assert_eq!(client.socket.outbox.closing(), None);
}

#[tokio::test]
async fn a_bearer_is_counted_until_connect_and_gone_then() {
    let world = World::new(bus()).await;
    let token = crate::tokens::tests::signed(1, &crate::testing::claims(json!({})));
    let authorization = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    let headers = HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, authorization)]);
    let socket = world.server.open(Transport::POLLING, address(1), &headers).unwrap();
    let before = socket.outbox.bytes();
    assert!(before > token.len());
    world.server.receive(&socket, "40").unwrap();
    eventually(|| socket.client.identity().is_some()).await;
    socket.outbox.take_some(9, usize::MAX);
    eventually(|| socket.outbox.bytes() < before - token.len()).await;
}

#[tokio::test]
async fn few_sends_of_a_user_are_under_way_at_once_however_many_sockets_they_come_from() {
    let world = World::new(bus()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = world.client();
        client.emit(&connect(json!({})));
        client.receives("40{").await;
        clients.push(client);
    }
    let rooms = (0..MAX_SENDS).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    for client in &clients {
        for room in &rooms {
            world
                .server
                .receive(&client.socket, &format!(r#"42["message",{{"roomId":"{room}","content":"x"}}]"#))
                .unwrap();
        }
    }
    let next = |client: usize, room: usize| next(&clients[client].socket, rooms[room]);
    let mut turns = Vec::new();
    for room in 0..MAX_SENDS {
        turns.push(next(0, room).await.unwrap());
        turns.push(next(1, room).await.unwrap());
    }
    let mut waiting = Box::pin(next(2, 0));
    assert!(futures::poll!(&mut waiting).is_pending());
    turns.pop();
    assert_eq!(waiting.await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn joins_go_on_while_another_holds_more_than_half() {
    let world = World::with(bus(), &["--max-outbox-bytes", "600000"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    let greedy = world.known(1);
    greedy.outbox.push(Frame::engine(&"x".repeat(500_000)));
    // At once: a client that waits looks again after a quarter of a second.
    client.emit(&format!("420[\"joinRoom\",\"{ROOM}\"]"));
    timeout(Duration::from_secs(2), client.receives("430[{\"ok\":true")).await.unwrap();
    let wait = async || timeout(Duration::from_millis(50), greedy.outbox.within_share("join")).await;
    assert!(wait().await.is_err(), "the other waits");
    greedy.outbox.take_some(9, usize::MAX);
    assert!(wait().await.is_ok());
}

//! The bounds on the memory that a client uses at its gateway.

use serde_json::json;

use super::*;
use crate::chat::request::Request;
use crate::chat::testing::{World, address, connect, hide};
use crate::chat::work::next;
use crate::testing::services::ROOM;
use crate::testing::{bus, eventually};
use axum::http::{HeaderMap, HeaderValue};
use confab_socketio::Transport;
use confab_socketio::outbox::Close;
use prost::Message;
use tokio::time::{Instant, timeout};

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
        assert!(asked < 50_000, "all events are answered although the client reads nothing");
        tokio::task::yield_now().await;
    }
    // No event was dropped.
    eventually(|| {
        client.read_frames();
        client.received.len() == asked
    })
    .await;
    assert!(!client.socket.client.is_paused());
}

#[tokio::test]
async fn sends_in_flight_of_a_socket_are_bounded_across_rooms() {
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
        assert_eq!(events.len(), 2, "pending sends of one room go together");
        turns.push(turn);
    }
    let mut waiting = Box::pin(next(&rooms[100]));
    assert!(futures::poll!(&mut waiting).is_pending());
    // A request that does not append to the log needs no permit.
    let (events, turn) = next(&rooms[0]).await.unwrap();
    assert!(matches!(events[0].request, Request::Leave) && turn.is_none());
    turns.pop();
    assert_eq!(waiting.await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn events_of_a_client_count_until_they_are_finished() {
    let world = World::new(bus()).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    let socket = &client.socket;
    client.emit(&format!(r#"42["message",{{"roomId":"{}","content":"{}"}}]"#, Uuid::now_v7(), "x".repeat(10_000)));
    assert!(socket.outbox.bytes() > 10_000);
    // Only the rejection is queued.
    eventually(|| socket.outbox.bytes() < 1000).await;
    world.server.receive(socket, r#"451-["message",{}]"#).unwrap();
    assert!(world.server.receive_binary(socket, vec![0; 2_000_000].into()).is_err());
    world.server.close(socket, Ending::Malformed);
    socket.outbox.take_some(9, usize::MAX);
    assert_eq!(socket.outbox.bytes(), 0);
}

#[tokio::test]
async fn an_answer_over_the_bound_before_connect_closes_the_session() {
    let world = World::new(bus()).await;
    let socket = world.client().socket;
    let _ = world.server.receive(&socket, &format!("40/{},", "x".repeat(17_000)));
    assert_eq!(socket.outbox.closing(), Some(Close::Now));
}

#[tokio::test]
async fn requests_for_unknown_namespaces_count_as_events() {
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
async fn a_bearer_token_counts_until_connect() {
    let world = World::new(bus()).await;
    let token = confab_identity::testing::signed(1, &crate::testing::claims(json!({})));
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
async fn sends_in_flight_of_a_user_are_bounded_across_sockets() {
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
async fn joins_continue_while_another_user_exceeds_its_share() {
    let world = World::with(bus(), &["--max-outbox-bytes", "600000"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    let greedy = world.known(1);
    greedy.outbox.push(Frame::engine(&"x".repeat(500_000)));
    // Less than 2 s: the client must not wait for the other user.
    client.emit(&format!("420[\"joinRoom\",\"{ROOM}\"]"));
    timeout(Duration::from_secs(2), client.receives("430[{\"ok\":true")).await.unwrap();
    let wait = async || timeout(Duration::from_millis(50), greedy.outbox.within_share("join")).await;
    assert!(wait().await.is_err(), "the other user waits");
    greedy.outbox.take_some(9, usize::MAX);
    assert!(wait().await.is_ok());
}

#[tokio::test]
async fn sockets_of_a_room_that_becomes_private_close_at_different_times() {
    let world = World::new(bus()).await;
    let mut clients = Vec::new();
    for user in 1..=30 {
        clients.push(world.joined(user, json!({})).await);
    }
    tokio::time::pause();
    let seq = world.log.change("roomUpdated", hide(&[1]));
    world.publish(world.hint(seq, 1).encode_to_vec());
    let begun = Instant::now();
    let mut times = Vec::new();
    eventually(|| {
        let closed = clients.iter().filter(|client| client.socket.outbox.closing().is_some()).count();
        times.resize(closed, begun.elapsed());
        closed == clients.len()
    })
    .await;
    let spread = times[times.len() - 1] - times[0];
    assert!(spread > RESYNC_SPREAD / 2, "all sockets are closed within {spread:?}");
    assert!(spread <= RESYNC_SPREAD + Duration::from_millis(10), "{spread:?}");
}

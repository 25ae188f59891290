//! Bounds on what a client may make its gateway hold.

use serde_json::json;

use super::*;
use crate::realtime::testing::{World, connect};
use crate::testing::{bus, eventually};

#[tokio::test]
async fn backpressure_stops_reading() {
    let world = World::with(bus(), &["--max-events-per-second", "0"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.hears("40{").await;
    client.heard.clear();
    let mut asked = 0;
    while !client.session.socket.is_paused() {
        client.emit(&format!("42{asked}[\"leaveRoom\",\"{}\"]", Uuid::now_v7()));
        asked += 1;
        assert!(asked < 50_000, "everything is answered, although nothing is read");
        tokio::task::yield_now().await;
    }
    // No event was dropped, either.
    eventually(|| {
        client.listen();
        client.heard.len() == asked
    })
    .await;
    assert!(!client.session.socket.is_paused());
}

#[tokio::test]
async fn few_sends_of_a_client_are_under_way_at_once_however_many_rooms_they_go_to() {
    let world = World::new(bus()).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.hears("40{").await;
    let (session, rooms) = (&client.session, (0..200).map(|_| Uuid::now_v7()).collect::<Vec<_>>());
    for room in &rooms {
        for name in ["message", "message", "leaveRoom"] {
            session.receive(&format!(r#"42["{name}",{{"roomId":"{room}","content":"x"}}]"#)).unwrap();
        }
    }
    let next = |room: &Uuid| session.socket.next(session, *room);
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
    client.hears("40{").await;
    let session = &client.session;
    client.emit(&format!(r#"42["message",{{"roomId":"{}","content":"{}"}}]"#, Uuid::now_v7(), "x".repeat(10_000)));
    assert!(session.outbox.bytes() > 10_000);
    // Only the refusal is left.
    eventually(|| session.outbox.bytes() < 1000).await;
    session.receive(r#"451-["message",{}]"#).unwrap();
    assert!(session.receive_binary(vec![0; 2_000_000].into()).is_err());
    session.finish();
    session.outbox.take_some(9, usize::MAX);
    assert_eq!(session.outbox.bytes(), 0);
}

#[tokio::test]
async fn before_connect_little_is_taken() {
    let world = World::new(bus()).await;
    let refused = |packets: &[&str]| {
        let session = world.client().session;
        packets.iter().position(|packet| session.receive(packet).is_err())
    };
    assert_eq!(refused(&["40/a,", "3", "40/b,"]), Some(2), "one unknown namespace is answered");
    assert_eq!(refused(&[r#"451-["fileUpload",{}]"#]), Some(0));
    assert_eq!(refused(&["461-[]"]), Some(0));
    assert_eq!(refused(&[&format!("2{}", "x".repeat(1000))]), Some(0));
    for packet in ["2", "3", "6", "41/x,", "42/x,[]"] {
        let at = refused(&[packet; 1000]).unwrap();
        assert!((100..200).contains(&at), "{packet} is taken {at} times");
    }
    // An answer that does not fit is not queued.
    let session = world.client().session;
    let _ = session.receive(&format!("40/{},", "x".repeat(17_000)));
    assert_eq!(session.outbox.closing(), Some(Close::Now));
}

#[tokio::test]
async fn a_connected_client_may_ask_for_unknown_namespaces_as_often_as_for_anything() {
    let world = World::with(bus(), &["--max-events-per-second", "10"], 1).await;
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.hears("40{").await;
    (0..100).for_each(|_| client.emit("40/x,"));
    for _ in 0..10 {
        client.listen();
    }
    let answered = client.heard.iter().filter(|heard| heard.starts_with("44/x,")).count();
    assert!((10..40).contains(&answered), "{answered}");
    assert_eq!(client.session.outbox.closing(), None);
}

#[tokio::test]
async fn a_bearer_is_counted_until_connect_and_gone_then() {
    let world = World::new(bus()).await;
    let token = crate::tokens::tests::signed(1, &crate::testing::claims(json!({})));
    let address = crate::realtime::testing::address(1);
    let transport = crate::realtime::session::Transport::Polling { reading: false };
    let session = Session::open(&world.edge, transport, address, Some(token.clone().into())).unwrap();
    let before = session.outbox.bytes();
    assert!(before > token.len());
    session.receive("40").unwrap();
    eventually(|| session.socket.identity().is_some()).await;
    session.outbox.take_some(9, usize::MAX);
    eventually(|| session.outbox.bytes() < before - token.len()).await;
}

#[tokio::test]
async fn few_sends_of_a_user_are_under_way_at_once_however_many_sockets_they_come_from() {
    let world = World::new(bus()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = world.client();
        client.emit(&connect(json!({})));
        client.hears("40{").await;
        clients.push(client);
    }
    let rooms = (0..MAX_SENDS).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    for client in &clients {
        for room in &rooms {
            client.session.receive(&format!(r#"42["message",{{"roomId":"{room}","content":"x"}}]"#)).unwrap();
        }
    }
    let next = |client: usize, room: usize| clients[client].session.socket.next(&clients[client].session, rooms[room]);
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

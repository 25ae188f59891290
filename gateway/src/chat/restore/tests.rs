//! Recovering clients over a scripted log.

use confab_common::bus::Bus;
use confab_socketio::Ending;
use serde_json::json;

use super::*;
use crate::chat::context::RESTORES;
use crate::chat::recovery::Recovery;
use crate::chat::testing::{Client, EPOCH, World, connect, partition};
use crate::testing::services::ROOM;
use crate::testing::{bus, identity};

/// A world in which 130 events cost more than a recovery may send.
async fn world(bus: Bus) -> World {
    World::with(bus, &[], 12_000).await
}

fn room() -> Uuid {
    ROOM.parse().unwrap()
}

/// The offset of a client in the room that has received everything up to this number.
fn at(sent: u64) -> Offset {
    let epoch = EPOCH.parse().unwrap();
    Offset { epoch, rooms: [(room(), Some(sent))].into(), ..Offset::new(&identity().user.id) }
}

/// A client that has connected to be recovered from there.
async fn returning(world: &World, offset: &Offset) -> Client {
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    client.received.clear();
    let _ = client.socket.client.recovery.set(Box::new(Recovery::new(offset.clone())));
    client
}

#[tokio::test]
async fn events_already_read_are_not_lost_when_more_must_be_read() {
    let world = world(bus()).await;
    let (mut member, joining) = (world.member().await, world.member().await);
    // Another client's join takes long: meanwhile the room's tail is kept, up to its bound.
    world.chat.hub.begin_join(room(), partition(), &joining.socket);
    let sent = world.append_and_publish(70);
    member.receives_up_to(sent).await;
    let offset = at(sent - 3);
    let mut client = returning(&world, &offset).await;
    let restored = restore(&world.chat, &client.socket, &offset).await.unwrap();
    // All three are read; now the tail overflows.
    let last = world.append_and_publish(20);
    member.receives_up_to(last).await;
    assert!(restored.go_live(&world.chat, &client.socket).await);
    assert_eq!(client.receives_up_to(last).await, (sent - 2..=last).collect::<Vec<_>>());
    world.chat.hub.check_invariants();
}

#[tokio::test]
async fn a_client_that_has_missed_too_many_bytes_is_not_brought_back() {
    let world = world(bus()).await;
    let offset = at(7);
    for (missed, fits) in [(100, true), (40, false)] {
        world.append(missed);
        let client = returning(&world, &offset).await;
        let restored = restore(&world.chat, &client.socket, &offset).await;
        assert_eq!(restored.is_some(), fits);
        assert_eq!(client.socket.client.is_in(room()), fits);
        world.server.close(&client.socket, Ending::ConnectionLost);
    }
    assert!(world.chat.hub.members(room()).is_empty());
}

#[tokio::test]
async fn no_client_is_recovered_while_much_waits_for_others() {
    let world = World::with(bus(), &["--max-outbox-bytes", "600000"], 12_000).await;
    let (mut member, stalled) = (world.member().await, world.member().await);
    for _ in 0..3 {
        let sent = world.append_and_publish(10);
        member.receives_up_to(sent).await;
    }
    let offset = at(37);
    let client = returning(&world, &offset).await;
    let mut restoring = Box::pin(restore(&world.chat, &client.socket, &offset));
    let early = timeout(Duration::from_millis(200), &mut restoring).await;
    assert!(early.is_err(), "more than half of what may wait does so already");
    assert_eq!(world.chat.restores.available_permits(), RESTORES, "no place is kept from others meanwhile");
    world.server.close(&stalled.socket, Ending::ConnectionLost);
    drop(stalled);
    assert!(restoring.await.unwrap().go_live(&world.chat, &client.socket).await);
}

#[tokio::test(start_paused = true)]
async fn a_returning_client_waits_for_its_turn_however_slow_the_storm() {
    let world = world(bus()).await;
    let offset = at(5);
    let turns = world.chat.restores.clone().acquire_many_owned(RESTORES as u32).await.unwrap();
    let client = returning(&world, &offset).await;
    let mut restoring = Box::pin(restore(&world.chat, &client.socket, &offset));
    assert!(timeout(Duration::from_secs(15), &mut restoring).await.is_err());
    drop(turns);
    let restored = restoring.await.unwrap();
    assert_eq!(world.chat.restores.available_permits(), RESTORES - 1, "what was read is held");
    assert!(restored.go_live(&world.chat, &client.socket).await);
    assert_eq!(world.chat.restores.available_permits(), RESTORES);
}

#[tokio::test(start_paused = true)]
async fn one_user_leaves_places_to_others() {
    let world = world(bus()).await;
    let offset = at(5);
    let mut clients = Vec::new();
    for _ in 0..17 {
        clients.push(returning(&world, &offset).await);
    }
    let back = join_all(clients[..16].iter().map(|client| restore(&world.chat, &client.socket, &offset))).await;
    assert!(back.iter().all(Option::is_some) && world.chat.restores.available_permits() == RESTORES - 16);
    let mut last = Box::pin(restore(&world.chat, &clients[16].socket, &offset));
    assert!(timeout(Duration::from_secs(15), &mut last).await.is_err());
    drop(back);
    assert!(last.await.is_some());
}

#[tokio::test]
async fn one_read_serves_many_who_return() {
    let world = world(bus()).await;
    let _member = world.member().await;
    let (last, offset) = (world.append(9), at(7));
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(returning(&world, &offset).await);
    }
    let before = world.log.lists.load(Ordering::SeqCst);
    let restored = join_all(clients.iter().map(|client| restore(&world.chat, &client.socket, &offset))).await;
    assert!(
        world.log.lists.load(Ordering::SeqCst) - before <= 3,
        "{}",
        world.log.lists.load(Ordering::SeqCst) - before
    );
    for (restored, client) in restored.into_iter().zip(&mut clients) {
        assert!(restored.unwrap().go_live(&world.chat, &client.socket).await);
        assert_eq!(client.receives_up_to(last).await, (8..=last).collect::<Vec<_>>());
    }
}

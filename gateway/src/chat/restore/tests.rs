//! Recoveries over a scripted log.

use confab_common::bus::Bus;
use confab_socketio::Ending;
use serde_json::json;

use super::*;
use crate::chat::context::RESTORES;
use crate::chat::recovery::Recovery;
use crate::chat::testing::{Client, EPOCH, World, access, connect, hide, partition};
use crate::testing::services::ROOM;
use crate::testing::{bus, identity};

/// A world in which 130 events exceed the byte limit of a recovery.
async fn world(bus: Bus) -> World {
    World::with(bus, &[], 12_000).await
}

fn room() -> Uuid {
    ROOM.parse().unwrap()
}

/// The offset of a client in the room that has received all events up to this `seq`.
fn at(sent: u64) -> Offset {
    let epoch = EPOCH.parse().unwrap();
    Offset { epoch, rooms: [(room(), Some(sent))].into(), ..Offset::new(&identity().user.id) }
}

/// A connected client with this recovery offset.
async fn returning(world: &World, offset: &Offset) -> Client {
    let mut client = world.client();
    client.emit(&connect(json!({})));
    client.receives("40{").await;
    client.received.clear();
    let _ = client.socket.client.recovery.set(Box::new(Recovery::new(offset.clone())));
    client
}

#[tokio::test]
async fn a_recovery_reads_again_when_the_tail_overflows() {
    let world = world(bus()).await;
    let (mut member, joining) = (world.member().await, world.member().await);
    // During the join of another client, the hub keeps the room's tail up to its bound.
    world.chat.hub.begin_join(room(), partition(), &joining.socket);
    let sent = world.append_and_publish(70);
    member.receives_up_to(sent).await;
    let offset = at(sent - 3);
    let mut client = returning(&world, &offset).await;
    let restored = restore(&world.chat, &client.socket, &offset).await.unwrap();
    // The recovery has read all three missed events. Now the tail overflows.
    let last = world.append_and_publish(20);
    member.receives_up_to(last).await;
    assert!(restored.go_live(&world.chat, &client.socket).await);
    assert_eq!(client.receives_up_to(last).await, (sent - 2..=last).collect::<Vec<_>>());
    world.chat.hub.check_invariants();
}

#[tokio::test]
async fn a_client_that_missed_too_many_bytes_is_not_recovered() {
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
async fn recovery_waits_while_half_of_the_memory_limit_is_exceeded() {
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
    assert!(early.is_err(), "more than half of the memory limit is in use");
    assert_eq!(world.chat.restores.available_permits(), RESTORES, "the waiting client holds no common permit");
    world.server.close(&stalled.socket, Ending::ConnectionLost);
    drop(stalled);
    assert!(restoring.await.unwrap().go_live(&world.chat, &client.socket).await);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_waits_15_s_for_a_permit() {
    let world = world(bus()).await;
    let offset = at(5);
    let turns = world.chat.restores.clone().acquire_many_owned(RESTORES as u32).await.unwrap();
    let client = returning(&world, &offset).await;
    let mut restoring = Box::pin(restore(&world.chat, &client.socket, &offset));
    assert!(timeout(Duration::from_secs(15), &mut restoring).await.is_err());
    drop(turns);
    let restored = restoring.await.unwrap();
    assert_eq!(world.chat.restores.available_permits(), RESTORES - 1, "the permit is held while the events wait");
    assert!(restored.go_live(&world.chat, &client.socket).await);
    assert_eq!(world.chat.restores.available_permits(), RESTORES);
}

#[tokio::test(start_paused = true)]
async fn one_user_cannot_take_all_permits() {
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
async fn one_read_serves_many_recoveries() {
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

#[tokio::test]
async fn a_recovery_has_the_missed_changes_of_messages() {
    // The changes come first, in between and last.
    for kinds in ["e", "em", "mem", "meemme", "mmme"] {
        let world = World::new(bus()).await;
        let _member = world.member().await;
        for kind in kinds.chars() {
            if kind == 'e' {
                world.log.edit(5)
            } else {
                world.append(1)
            };
        }
        let (last, offset) = (7 + kinds.len() as u64, at(7));
        let mut client = returning(&world, &offset).await;
        let restored = restore(&world.chat, &client.socket, &offset).await.unwrap();
        assert!(restored.go_live(&world.chat, &client.socket).await);
        client.read_frames();
        let is_edit = |packet: &&String| packet.starts_with("42[\"messageUpdated\"");
        let edits = client.received.iter().filter(is_edit).cloned().collect::<Vec<_>>();
        assert_eq!(edits.len(), kinds.matches('e').count(), "{kinds}");
        let edit = 7 + kinds.rfind('e').unwrap() as u64 + 1;
        assert!(edits.iter().all(|edit_packet| edit_packet.contains(&format!("\"revision\":{edit}"))), "{edits:?}");
        assert_eq!(client.receives_up_to(last).await, (8..=last).collect::<Vec<_>>(), "{kinds}");
        // Later changes arrive live.
        let live = world.log.edit(8);
        world.publish(prost::Message::encode_to_vec(&world.hint(live, 1)));
        client.receives_up_to(live).await;
    }
}

#[tokio::test]
async fn only_members_of_a_private_room_are_recovered() {
    let (me, other) = (7, 8);
    for (members, is_member) in [(&[me, other][..], true), (&[other], false)] {
        let world = world(bus()).await;
        let last = world.log.change("roomUpdated", hide(members));
        let offset = at(5);
        let mut client = returning(&world, &offset).await;
        let restored = restore(&world.chat, &client.socket, &offset).await;
        assert_eq!((restored.is_some(), client.socket.client.is_in(room())), (is_member, is_member));
        if let Some(restored) = restored {
            assert!(restored.go_live(&world.chat, &client.socket).await);
            assert_eq!(client.receives_up_to(last).await, [6, 7, 8]);
        }
    }
}

#[tokio::test]
async fn a_user_who_is_removed_during_the_recovery_is_not_recovered() {
    let (me, other) = (7, 8);
    let world = world(bus()).await;
    world.log.change("roomUpdated", hide(&[me, other]));
    let mut member = world.joined(other, json!({})).await;
    let offset = at(5);
    let mut client = returning(&world, &offset).await;
    let restored = restore(&world.chat, &client.socket, &offset).await.unwrap();
    let left = world.log.change("memberLeft", access(&[], &[me]));
    world.publish(prost::Message::encode_to_vec(&world.hint(left, 1)));
    assert_eq!(member.receives_up_to(left).await, [left]);
    assert!(!restored.go_live(&world.chat, &client.socket).await);
    client.read_frames();
    assert_eq!(client.seqs(), [0; 0]);
}

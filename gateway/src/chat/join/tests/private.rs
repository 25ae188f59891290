//! Private rooms over a scripted log: joins, removals, and a room that becomes private.

use confab_socketio::outbox::Close;
use serde_json::{Value, json};

use super::*;
use crate::chat::testing::{Client, EPOCH, access, hide};
use crate::rooms::effect::Effect;
use crate::rooms::event::encode;
use crate::rooms::hub::Delivery;

/// The users of these tests.
const ADA: u128 = 7;
const BOB: u128 = 8;

fn room() -> Uuid {
    ROOM.parse().unwrap()
}

/// Publishes the hint of the events from this number up to the head.
fn publish_from(world: &World, first: u64) {
    let hint = world.hint(first, world.append(0) + 1 - first);
    world.publish(prost::Message::encode_to_vec(&hint));
}

/// A world whose room has been private since event 8, with these members.
async fn private_world(members: &[u128]) -> World {
    let world = World::new(bus()).await;
    world.log.change("roomUpdated", hide(members));
    world
}

/// The answer to a `joinRoom` with this argument.
async fn join_answer(client: &mut Client, argument: Value) -> Value {
    client.received.clear();
    client.emit(&format!("425{}", json!(["joinRoom", argument])));
    client.receives("435[").await;
    let answer = client.received.iter().find_map(|frame| frame.strip_prefix("435")).unwrap();
    serde_json::from_str::<Value>(answer).unwrap()[0].clone()
}

async fn is_rejected(client: &mut Client) {
    let answer = join_answer(client, json!(ROOM)).await;
    let not_found = json!({ "code": "not_found", "status": 404, "detail": "no such room" });
    assert_eq!(answer, json!({ "ok": false, "error": not_found }));
    assert!(!client.socket.client.is_in(room()));
}

/// Waits until the client has received all queued frames; returns the names and numbers of the events among them.
async fn events_up_to(client: &mut Client, last: u64) -> Vec<(String, u64)> {
    let read = |client: &mut Client| {
        client.read_frames();
        let event = |frame: &String| {
            let event: Value = serde_json::from_str(frame.strip_prefix("42")?).ok()?;
            Some((event[0].as_str()?.to_owned(), event[1]["seq"].as_u64()?))
        };
        client.received.iter().filter_map(event).collect::<Vec<_>>()
    };
    eventually(|| read(client).last().is_some_and(|(_, seq)| *seq == last)).await;
    read(client)
}

#[tokio::test]
async fn only_members_can_join() {
    let world = private_world(&[ADA]).await;
    let mut stranger = world.connected(BOB, json!({})).await;
    is_rejected(&mut stranger).await;
    let mut member = world.joined(ADA, json!({})).await;
    let last = world.append_and_publish(1);
    assert_eq!(member.receives_up_to(last).await, [last]);
    // A user who becomes a member sees the whole history.
    world.log.change("memberJoined", access(&[BOB], &[]));
    let answer = join_answer(&mut stranger, json!({ "roomId": ROOM, "after": 0 })).await;
    assert_eq!((&answer["ok"], answer["messages"].as_array().unwrap().len()), (&json!(true), 10));
    stranger.read_frames();
    assert!(!stranger.received.iter().any(|frame| frame.starts_with("42")));
}

#[tokio::test]
async fn the_last_event_of_a_removed_user_is_its_removal() {
    let world = private_world(&[ADA, BOB]).await;
    let (mut removed, mut other) = (world.joined(BOB, json!({})).await, world.joined(ADA, json!({})).await);
    let mut laptop = world.joined(BOB, json!({ "recovery": true })).await;
    let left = world.log.change("memberLeft", access(&[], &[BOB]));
    let last = world.append(2);
    publish_from(&world, left);
    let (message, removal) = (|seq| ("message".to_owned(), seq), ("memberLeft".to_owned(), left));
    let expected = [removal.clone(), message(left + 1), message(last)];
    assert_eq!(events_up_to(&mut other, last).await, expected);
    for client in [&mut removed, &mut laptop] {
        assert_eq!(events_up_to(client, left).await, std::slice::from_ref(&removal));
        assert!(!client.socket.client.is_in(room()) && client.socket.outbox.closing().is_none());
    }
    // A removed user's recovery offset no longer contains the room.
    laptop.receives("42[\"session\"").await;
    laptop.emit(&format!("426[\"leaveRoom\",\"{ROOM}\"]"));
    laptop.receives("436[{\"ok\":true}]").await;
    is_rejected(&mut removed).await;
    world.log.change("memberJoined", access(&[BOB], &[]));
    assert_eq!(join_answer(&mut removed, json!(ROOM)).await["ok"], true);
    let last = world.append_and_publish(1);
    assert_eq!(events_up_to(&mut removed, last).await, [message(last)]);
    laptop.read_frames();
    assert!(!laptop.received.iter().any(|frame| frame.contains(&format!("\"seq\":{last}"))));
}

#[tokio::test]
async fn a_removal_whose_hint_is_lost_is_applied_in_order() {
    let world = private_world(&[ADA, BOB]).await;
    let (mut removed, mut other) = (world.joined(BOB, json!({})).await, world.joined(ADA, json!({})).await);
    world.append(1);
    let left = world.log.change("memberLeft", access(&[], &[BOB]));
    let last = world.append_and_publish(1);
    assert_eq!(other.receives_up_to(last).await, [left - 1, left, last]);
    assert_eq!(removed.receives_up_to(left).await, [left - 1, left]);
    removed.read_frames();
    assert_eq!(removed.seqs().last(), Some(&left));
}

#[tokio::test]
async fn a_room_that_becomes_private_closes_its_sockets() {
    let world = World::new(bus()).await;
    let mut clients = [world.joined(ADA, json!({})).await, world.joined(BOB, json!({})).await];
    let public = world.append_and_publish(1);
    for client in &mut clients {
        assert_eq!(client.receives_up_to(public).await, [public]);
    }
    let hidden = world.log.change("roomUpdated", hide(&[ADA]));
    let last = world.append(2);
    publish_from(&world, hidden);
    eventually(|| world.chat.hub.members(room()).is_empty()).await;
    for client in &mut clients {
        client.read_frames();
        assert_eq!(client.received, [""; 0], "neither the event nor a later one was queued");
    }
    eventually(|| clients.iter().all(|client| client.socket.outbox.closing() == Some(Close::Now))).await;
    let mut member = world.connected(ADA, json!({})).await;
    let answer = join_answer(&mut member, json!({ "roomId": ROOM, "after": public, "epoch": EPOCH })).await;
    assert_eq!((answer["messages"].as_array().unwrap().len(), &answer["lastSeq"]), (3, &json!(last)));
    is_rejected(&mut world.connected(BOB, json!({})).await).await;
}

#[tokio::test]
async fn a_change_between_history_and_the_answer_is_applied() {
    for (members, name, change, user, is_admitted) in [
        (&[ADA, BOB][..], "memberLeft", access(&[], &[BOB]), BOB, false),
        (&[ADA, BOB], "memberLeft", access(&[], &[BOB]), ADA, true),
        (&[], "roomUpdated", hide(&[ADA]), BOB, false),
        (&[], "roomUpdated", hide(&[ADA]), ADA, true),
    ] {
        let world = if members.is_empty() { World::new(bus()).await } else { private_world(members).await };
        let mut client = world.connected(user, json!({})).await;
        // The change is fanned out below, not by the follower.
        world.log.readable.store(false, std::sync::atomic::Ordering::SeqCst);
        let (log, hub) = (world.log.clone(), world.chat.hub.clone());
        *world.log.meanwhile.lock() = Some(Box::new(move || {
            let seq = log.change(name, change);
            let event = log.event(seq);
            let delivery = Delivery { room: room(), seq, effect: Effect::of(&event), event };
            assert_eq!(hub.fan_out(&[delivery], encode, &mut Vec::new()), 0);
        }));
        if is_admitted {
            assert_eq!(join_answer(&mut client, json!(ROOM)).await["ok"], true);
        } else {
            is_rejected(&mut client).await;
        }
        assert_eq!(world.chat.hub.members(room()).len(), usize::from(is_admitted));
    }
}

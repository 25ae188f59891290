//! Follows a scripted log: holes of every size, hints of every kind, a paused gateway.

use bytes::Bytes;
use confab_proto::message::v1::{Event, Hint};
use prost::Message;

use super::*;
use crate::chat::testing::{AWAY, EPOCH, NEXT_EPOCH, World, partition};
use crate::testing::services::ROOM;
use crate::testing::{bus, eventually};
use confab_socketio::outbox::Close;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_client_receives_every_event_of_a_large_hole() {
    let world = World::new(bus()).await;
    let (mut reader, stalled) = (world.member().await, world.member().await);
    // More events than an outbox holds, and no hint for them.
    let last = world.append(9000);
    assert_eq!(reader.receives_up_to(last).await, (8..=last).collect::<Vec<_>>());
    assert_eq!(reader.socket.outbox.closing(), None);
    assert_eq!(
        stalled.socket.outbox.closing(),
        Some(Close::Now),
        "the gateway does not wait for a client that reads nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stalled_client_delays_a_repair_only_once() {
    let world = World::new(bus()).await;
    let (mut reader, _stalled) = (world.member().await, world.member().await);
    let begin = Instant::now();
    let last = world.append(9000);
    reader.receives_up_to(last).await;
    // 1 s until the head is polled, and 1 s to wait for a client that reads nothing.
    assert!(begin.elapsed() < 3 * POLL, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_hole_too_large_to_replay_closes_clients() {
    let world = World::new(bus()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(world.member().await);
    }
    world.append(10_001);
    eventually(|| clients.iter().all(|client| client.socket.outbox.closing() == Some(Close::Now))).await;
    assert!(clients.iter().all(|client| client.socket.outbox.is_empty()), "no event of the hole was sent");
    // Clients that reconnect receive new events.
    let mut back = world.member().await;
    let last = world.append_and_publish(1);
    assert_eq!(back.receives_up_to(last).await, [last]);
}

async fn the_next_good_hint_is_delivered(world: World) {
    let mut client = world.member().await;
    let good = world.hint(8, 3);
    let encoded = good.encode_to_vec();
    let forged = [
        Hint { partition: partition() ^ 1, ..good.clone() },
        Hint { events: vec![], ..good.clone() },
        Hint { first_position: 0, ..good.clone() },
        Hint { first_position: u64::MAX, ..good.clone() },
        Hint { first_position: 9, ..good.clone() },
        Hint { events: vec![Event { seq: 0, ..world.log.event(8) }], ..good.clone() },
    ];
    for garbage in [&b"garbage"[..], &[0xff; 100], &[], &encoded[..encoded.len() - 1]] {
        world.publish(Bytes::copy_from_slice(garbage));
    }
    forged.iter().for_each(|hint| world.publish(hint.encode_to_vec()));
    world.publish(vec![0x5a; confab_common::bus::MAX_PAYLOAD - 100]);
    // Well formed, but with an epoch that does not exist: the database decides, and no client is closed.
    world.publish(Hint { epoch: NEXT_EPOCH.into(), ..good.clone() }.encode_to_vec());
    let far = 1_000_000;
    world.publish(world.hint(far, 1).encode_to_vec());
    world.append(3);
    world.publish(encoded);
    assert_eq!(client.receives_up_to(10).await, [8, 9, 10]);
    world.heads_polled(2).await;
    assert_eq!(client.socket.outbox.closing(), None);
}

#[tokio::test]
async fn arbitrary_payloads_on_the_local_bus_are_ignored() {
    the_next_good_hint_is_delivered(World::new(bus()).await).await;
}

#[tokio::test]
async fn arbitrary_payloads_on_redis_are_ignored() {
    let redis =
        Bus::open(&confab_common::testing::redis(), Some(&confab_common::testing::cluster_key("key").bus)).unwrap();
    the_next_good_hint_is_delivered(World::new(redis).await).await;
}

#[tokio::test]
async fn arbitrary_payloads_on_an_unsigned_redis_are_ignored() {
    let redis = Bus::open(&confab_common::testing::redis(), None).unwrap();
    the_next_good_hint_is_delivered(World::new(redis).await).await;
}

#[tokio::test]
async fn the_first_hint_of_a_new_epoch_starts_over() {
    let world = World::new(bus()).await;
    let client = world.member().await;
    *world.log.epoch.lock() = NEXT_EPOCH;
    world.publish(Hint { epoch: NEXT_EPOCH.into(), ..world.hint(8, 1) }.encode_to_vec());
    eventually(|| client.socket.outbox.closing() == Some(Close::Now)).await;
    let mut back = world.member().await;
    *world.log.epoch.lock() = EPOCH;
    // A hint from a replica that has not read the new epoch yet.
    world.append(1);
    world.heads_polled(3).await;
    back.read_frames();
    assert_eq!((back.seqs(), back.socket.outbox.closing()), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn readiness_requires_partitions_to_keep_up() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    let ready = || world.process.readiness.missing().is_none();
    world.log.readable.store(false, Ordering::SeqCst);
    let last = world.append(1);
    let begin = Instant::now();
    eventually(|| !ready()).await;
    assert!(
        begin.elapsed() >= Duration::from_secs(5) && begin.elapsed() < Duration::from_secs(7),
        "{:?}",
        begin.elapsed()
    );
    world.log.readable.store(true, Ordering::SeqCst);
    eventually(ready).await;
    assert_eq!(client.receives_up_to(last).await, [last]);
}

#[tokio::test]
async fn a_paused_gateway_sends_nothing_before_it_has_caught_up() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    world.chat.revocations.pauses().stand_still();
    world.revoked.store(AWAY, Ordering::SeqCst);
    world.append_and_publish(1);
    eventually(|| !client.socket.outbox.is_empty()).await;
    world.heads_polled(3).await;
    client.read_frames();
    assert_eq!(client.received, [""; 0]);
    // The client's token was revoked during the pause.
    world.revoked.store(1, Ordering::SeqCst);
    client.receives("41").await;
    assert_eq!(client.received, [r#"42["sessionEnded",{"code":"logged_out"}]"#, "41"]);
    assert!(!world.chat.registry.budget().is_paused());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_message_service_does_not_make_a_gateway_unready() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    world.log.away.store(true, Ordering::SeqCst);
    let last = world.append(1);
    for _ in 0..30 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.process.readiness.missing(), None);
    }
    world.log.away.store(false, Ordering::SeqCst);
    assert_eq!(client.receives_up_to(last).await, [last]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_followed_for_a_while_after_its_last_client_left() {
    let world = World::new(bus()).await;
    let client = world.member().await;
    let (follower, hub, room) = (&world.chat.follower, &world.chat.hub, ROOM.parse().unwrap());
    let follows = || follower.followed.lock().contains_key(&partition());
    for _ in 0..2 {
        hub.leave(room, client.socket.id());
        sleep(FOLLOW_LINGER - Duration::from_secs(2)).await;
        assert!(follows());
        hub.begin_join(room, partition(), &client.socket);
        sleep(2 * POLL).await;
    }
    hub.leave(room, client.socket.id());
    sleep(FOLLOW_LINGER - Duration::from_secs(2)).await;
    assert!(follows());
    eventually(|| !follows()).await;
    // The partition's channel is unsubscribed as well.
    let (inputs, mut received) = mpsc::channel(INPUTS);
    let followed =
        Followed { inputs, ready: watch::channel(true).1, reached: Arc::default(), lag: Lag::default(), unused: None };
    follower.followed.lock().insert(partition(), followed);
    world.publish(world.hint(8, 1).encode_to_vec());
    world.heads_polled(2).await;
    let received = std::iter::from_fn(|| received.try_recv().ok()).collect::<Vec<_>>();
    assert!(!received.is_empty() && received.iter().all(|input| matches!(input, Input::Head { .. })));
}

#[tokio::test]
async fn a_panic_in_a_partition_task_makes_its_clients_reconnect() {
    let world = World::new(bus()).await;
    let client = world.member().await;
    // Simulates a panic of the task.
    world.chat.follower.followed.lock().get_mut(&partition()).unwrap().inputs = mpsc::channel(1).0;
    eventually(|| client.socket.outbox.closing() == Some(Close::Now)).await;
    let mut back = world.member().await;
    let last = world.append_and_publish(1);
    assert_eq!(back.receives_up_to(last).await, [last]);
}

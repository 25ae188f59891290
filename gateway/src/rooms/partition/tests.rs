//! Hints out of order, channels that lost their subscription, heads that fall.

use std::ops::RangeInclusive;

use super::*;
use crate::chat::testing::{Client, World, partition};
use crate::testing::{bus, eventually};
use confab_socketio::outbox::Close;

/// A test gateway with one client and a log that cannot be read: all events that the client receives came from hints.
async fn by_hints_alone(content: usize) -> (World, Client) {
    let world = World::with(bus(), &[], content).await;
    let client = world.member().await;
    world.log.readable.store(false, Ordering::SeqCst);
    (world, client)
}

fn tell_of_each(world: &World, positions: impl IntoIterator<Item = u64>) {
    positions.into_iter().for_each(|position| world.publish(world.hint(position, 1).encode_to_vec()));
}

/// Of the hints beyond a hole, `parked` are delivered once the hole is repaired, and the others as soon as the log can
/// be read.
async fn parks(content: usize, beyond: RangeInclusive<u64>, parked: u64) {
    let (world, mut client) = by_hints_alone(content).await;
    world.append(beyond.end() - 7);
    tell_of_each(&world, beyond.clone());
    tell_of_each(&world, [8]);
    assert_eq!(client.receives_up_to(parked).await, (8..=parked).collect::<Vec<_>>());
    world.heads_polled(2).await;
    client.read_frames();
    assert_eq!(client.seqs().last(), Some(&parked));
    world.log.readable.store(true, Ordering::SeqCst);
    assert_eq!(client.receives_up_to(*beyond.end()).await, (8..=*beyond.end()).collect::<Vec<_>>());
}

#[tokio::test]
async fn crossed_hints_are_reordered_without_reading_the_log() {
    let (world, mut client) = by_hints_alone(300).await;
    let last = world.append(6);
    for first in [12, 10, 8] {
        world.publish(world.hint(first, 2).encode_to_vec());
    }
    assert_eq!(client.receives_up_to(last).await, (8..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn parked_hints_are_bounded() {
    parks(300, 9..=80, 8 + MAX_PARKED as u64).await;
}

#[tokio::test]
async fn parked_bytes_are_bounded() {
    parks(50_000, 9..=16, 8 + (MAX_PARKED_BYTES / 50_200) as u64).await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_waits_briefly_for_its_predecessor() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    let last = world.append(2);
    let begin = Instant::now();
    tell_of_each(&world, [last]);
    eventually(|| world.log.reads.load(Ordering::SeqCst) > 0).await;
    assert!((REORDER..2 * REORDER).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(client.receives_up_to(last).await, [last - 1, last]);
}

#[tokio::test]
async fn a_lost_subscription_is_renewed() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    world.chat.follower.log.subscriptions.unsubscribe(channel::log(partition()));
    let missed = world.append(1);
    assert_eq!(client.receives_up_to(missed).await, [missed]);
    // Hints arrive again from now on.
    world.log.readable.store(false, Ordering::SeqCst);
    let last = world.append(1);
    eventually(|| {
        tell_of_each(&world, [last]);
        client.read_frames();
        client.seqs().last() == Some(&last)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_events_makes_clients_start_over() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    let last = world.append_and_publish(3);
    client.receives_up_to(last).await;
    // A single answer may be stale.
    world.log.head.store(last - 2, Ordering::SeqCst);
    world.heads_polled(1).await;
    world.log.head.store(last, Ordering::SeqCst);
    world.heads_polled(3).await;
    assert_eq!(client.socket.outbox.closing(), None);
    world.log.head.store(last - 2, Ordering::SeqCst);
    eventually(|| client.socket.outbox.closing() == Some(Close::Now)).await;
    let mut back = world.member().await;
    let next = world.append_and_publish(1);
    assert_eq!(back.receives_up_to(next).await, [last - 1]);
}

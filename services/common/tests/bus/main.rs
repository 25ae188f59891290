//! One suite for every implementation of the bus.

mod deployments;
mod hostile;
mod leaving;
mod outages;
mod redis_server;

use std::time::Duration;

use bytes::Bytes;
use confab_common::bus::{Bus, Notice, Notices, Subscriptions};
use confab_common::{Secret, testing};
use tokio::time::timeout;

/// Longer than any expected message takes.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);

fn local() -> Bus {
    Bus::open(&Secret::from("local:"), None).expect("the local bus")
}

fn redis() -> Bus {
    Bus::open(&testing::redis(), Some(&testing::cluster_key("a key").bus)).expect("a valid URL")
}

/// Returns a channel for this test only, because all tests share one Redis.
fn channel(name: &str) -> String {
    format!("{name}.{}", uuid::Uuid::now_v7())
}

async fn next(notices: &mut Notices) -> Notice {
    timeout(NOTICE_LIMIT, notices.next()).await.expect("a notice in time").expect("a living bus")
}

async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let becoming = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(NOTICE_LIMIT, becoming).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn payload(notices: &mut Notices) -> Bytes {
    match next(notices).await {
        Notice::Message { payload, .. } => payload,
        other => panic!("{other:?}"),
    }
}

async fn listen(bus: &Bus, channels: &[&String]) -> (Subscriptions, Notices) {
    let (subscriptions, mut notices) = bus.listen();
    assert_eq!(next(&mut notices).await, Notice::Up);
    for channel in channels {
        timeout(NOTICE_LIMIT, subscriptions.subscribe(*channel)).await.expect("a confirmation");
    }
    (subscriptions, notices)
}

async fn each_listener_receives_its_channels_in_order(bus: Bus, publisher: Bus) {
    let (a, b) = (channel("a"), channel("b"));
    let (_one, mut one) = listen(&bus, &[&a]).await;
    let (_both, mut both) = listen(&bus, &[&a, &b]).await;
    for n in 0..200 {
        publisher.publish(if n % 2 == 0 { &*a } else { &*b }, n.to_string());
    }
    for n in 0..200 {
        assert_eq!(payload(&mut both).await, n.to_string());
        if n % 2 == 0 {
            assert_eq!(payload(&mut one).await, n.to_string());
        }
    }
}

async fn ended_subscription_receives_nothing(bus: Bus) {
    let (a, b) = (channel("a"), channel("b"));
    let (subscriptions, mut notices) = listen(&bus, &[&a, &b]).await;
    subscriptions.unsubscribe(&*a);
    // Redis executes commands in order: this confirmation implies that the earlier command is done.
    timeout(NOTICE_LIMIT, subscriptions.subscribe(&*b)).await.expect("a confirmation");
    bus.publish(&*a, "after the end");
    bus.publish(&*b, "delivered");
    assert_eq!(payload(&mut notices).await, "delivered");
}

async fn dropped_listener_does_not_affect_others(bus: Bus) {
    let a = channel("a");
    drop(listen(&bus, &[&a]).await);
    let (_subscriptions, mut notices) = listen(&bus, &[&a]).await;
    bus.publish(&*a, "still here");
    assert_eq!(payload(&mut notices).await, "still here");
}

async fn binary_payloads_arrive_unchanged(bus: Bus) {
    let a = channel("a");
    let (_subscriptions, mut notices) = listen(&bus, &[&a]).await;
    let large = (0..1_000_000u32).map(|n| n as u8).collect::<Bytes>();
    for sent in [Bytes::new(), Bytes::from_static(b"\0\r\n\xff"), large] {
        bus.publish(&*a, sent.clone());
        assert_eq!(payload(&mut notices).await, sent);
    }
}

macro_rules! on_every_bus {
    ($($name:ident),+) => {
        mod on_local { $(#[tokio::test] async fn $name() { super::$name(super::local()).await; })+ }
        mod on_redis { $(#[tokio::test] async fn $name() { super::$name(super::redis()).await; })+ }
    };
}

use hostile::payload_size_limit_is_enforced;

on_every_bus!(
    ended_subscription_receives_nothing,
    dropped_listener_does_not_affect_others,
    binary_payloads_arrive_unchanged,
    payload_size_limit_is_enforced
);

#[tokio::test]
async fn in_process_order() {
    let bus = local();
    each_listener_receives_its_channels_in_order(bus.clone(), bus).await;
}

#[tokio::test]
async fn order_between_processes() {
    each_listener_receives_its_channels_in_order(redis(), redis()).await;
}

//! Foreign publications on the same Redis are dropped and counted, and the next valid message is received.

use std::sync::OnceLock;

use confab_common::bus::{Bus, MAX_PAYLOAD};
use confab_common::testing;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use redis::AsyncCommands;

use super::redis_server::connection;
use super::{channel, eventually, listen, payload, redis};

/// How many payloads this process has dropped for this reason.
fn dropped(reason: &str) -> u64 {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().expect("the only recorder");
    let text = METRICS.get_or_init(install).render();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("confab_bus_dropped_total{{reason=\"{reason}\"}} ")));
    line.map_or(0, |count| count.parse().expect("a number"))
}

async fn publish_raw(channel: &str, payloads: &[Vec<u8>]) {
    let mut connection = connection(&testing::redis()).await.expect("the test run's Redis");
    for payload in payloads {
        let _: u64 = connection.publish(channel, payload).await.expect("published");
    }
}

#[tokio::test]
async fn only_signed_messages_are_received_with_a_key() {
    let (before, a) = (dropped("forged"), channel("a"));
    let (_subscriptions, mut notices) = listen(&redis(), &[&a]).await;
    let hostile = [vec![], b"short".to_vec(), vec![0xff; 16], vec![0xff; 1000], vec![0; 5_000_000]];
    publish_raw(&a, &hostile).await;
    redis().publish(&*a, "good");
    assert_eq!(payload(&mut notices).await, "good");
    eventually("the dropped messages are counted", async || {
        dropped("forged") + dropped("too_large") >= before + hostile.len() as u64
    })
    .await;
}

#[tokio::test]
async fn oversized_messages_are_dropped_without_a_key() {
    let (before, a) = (dropped("too_large"), channel("a"));
    let open = Bus::open(&testing::redis(), None).expect("a valid URL");
    let (_subscriptions, mut notices) = listen(&open, &[&a]).await;
    publish_raw(&a, &[vec![0; 5_000_000], b"\xff\0garbage".to_vec()]).await;
    open.publish(&*a, "good");
    assert_eq!(payload(&mut notices).await, &b"\xff\0garbage"[..], "the bus does not interpret payloads");
    assert_eq!(payload(&mut notices).await, "good");
    eventually("the dropped message is counted", async || dropped("too_large") > before).await;
}

pub async fn payload_size_limit_is_enforced(bus: Bus) {
    let (before, a) = (dropped("too_large"), channel("a"));
    let (_subscriptions, mut notices) = listen(&bus, &[&a]).await;
    bus.publish(&*a, vec![1; MAX_PAYLOAD + 1]);
    bus.publish(&*a, vec![2; MAX_PAYLOAD]);
    assert_eq!(payload(&mut notices).await, vec![2; MAX_PAYLOAD]);
    assert!(dropped("too_large") > before);
}

/// Forgers without a key, and with another key.
#[tokio::test]
async fn messages_signed_with_another_key_are_dropped() {
    let a = channel("a");
    let (_subscriptions, mut notices) = listen(&redis(), &[&a]).await;
    let forger = Bus::open(&testing::redis(), Some(&testing::cluster_key("another key").bus)).expect("a valid URL");
    let plain = Bus::open(&testing::redis(), None).expect("a valid URL");
    // When the forgers receive their own messages, Redis has published those before the valid message.
    let (_f, mut forged) = listen(&forger, &[&a]).await;
    forger.publish(&*a, "forged");
    assert_eq!(payload(&mut forged).await, "forged");
    let (_p, mut unsigned) = listen(&plain, &[&a]).await;
    plain.publish(&*a, "unsigned");
    assert_eq!(payload(&mut unsigned).await, "unsigned");
    redis().publish(&*a, "good");
    assert_eq!(payload(&mut notices).await, "good");
}

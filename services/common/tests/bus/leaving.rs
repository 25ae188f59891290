//! A process that ends waits for its publications, but not for ever.

use std::time::{Duration, Instant};

use confab_common::bus::Bus;
use confab_common::testing::Wire;

use super::redis_server::RedisServer;
use super::{channel, eventually, local, redis};

/// More than fits into one pipeline.
const MANY: usize = 1000;
/// Well above the promised second.
const LONG: Duration = Duration::from_secs(5);

async fn publish_many(bus: &Bus) -> Duration {
    let channel = channel("leaving");
    (0..MANY).for_each(|n| bus.publish(&*channel, n.to_string()));
    let begun = Instant::now();
    bus.flush().await;
    begun.elapsed()
}

async fn published(redis: &RedisServer) -> usize {
    let answer = redis.info("commandstats").await.expect("an answer");
    let calls = answer.split_once("cmdstat_publish:calls=").and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// How many messages have reached Redis at the end of each of three flushes, or nothing when this machine stood still
/// meanwhile: late messages are dropped, which proves nothing.
async fn flushed() -> Option<Vec<usize>> {
    let redis = RedisServer::start().await;
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    let mut counts = Vec::new();
    for _ in 0..3 {
        let took = publish_many(&bus).await;
        (took < Duration::from_millis(800)).then_some(())?;
        counts.push(published(&redis).await);
    }
    Some(counts)
}

#[tokio::test]
async fn all_is_published_when_a_flush_is_over() {
    let mut counts = None;
    eventually("flushes on a machine that goes on", async || {
        counts = flushed().await;
        counts.is_some()
    })
    .await;
    assert_eq!(counts, Some(vec![MANY, 2 * MANY, 3 * MANY]));
}

#[tokio::test]
async fn a_flush_with_nothing_to_publish_does_not_wait() {
    let buses = [local(), redis()];
    eventually("a flush at once", async || {
        let begun = Instant::now();
        for bus in &buses {
            bus.flush().await;
        }
        begun.elapsed() < Duration::from_millis(100)
    })
    .await;
}

#[tokio::test]
async fn a_flush_does_not_wait_long_for_a_bus_that_is_away() {
    let mut redis = RedisServer::start().await;
    let wire = Wire::to(&redis.url()).await;
    for bus in [&redis.url(), &wire.url()].map(|url| Bus::open(url, None).expect("a valid URL")) {
        publish_many(&bus).await;
        wire.silence();
        assert!(publish_many(&bus).await < LONG);
        wire.carry();
    }
    redis.kill();
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    assert!(publish_many(&bus).await < LONG);
}

//! A process that ends waits for its last publications, within a time limit.

use std::time::{Duration, Instant};

use confab_common::bus::Bus;
use confab_common::testing::SilentProxy;

use super::redis_server::RedisServer;
use super::{channel, eventually, local, redis};

/// More messages than fit into one pipeline.
const MESSAGES: usize = 1000;
/// Well above the documented limit of one second.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

async fn publish_many(bus: &Bus) -> Duration {
    let channel = channel("leaving");
    (0..MESSAGES).for_each(|n| bus.publish(&*channel, n.to_string()));
    let begun = Instant::now();
    bus.flush().await;
    begun.elapsed()
}

async fn published(redis: &RedisServer) -> usize {
    let answer = redis.info("commandstats").await.expect("an answer");
    let calls = answer.split_once("cmdstat_publish:calls=").and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Returns how many messages have reached Redis at the end of each of three flushes. Returns `None` when this machine
/// stood still meanwhile: late messages are dropped, which proves nothing.
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
async fn flush_completes_after_all_publications() {
    let mut counts = None;
    eventually("three flushes without a standstill of the machine", async || {
        counts = flushed().await;
        counts.is_some()
    })
    .await;
    assert_eq!(counts, Some(vec![MESSAGES, 2 * MESSAGES, 3 * MESSAGES]));
}

#[tokio::test]
async fn empty_flush_does_not_wait() {
    let buses = [local(), redis()];
    eventually("a flush that returns at once", async || {
        let begun = Instant::now();
        for bus in &buses {
            bus.flush().await;
        }
        begun.elapsed() < Duration::from_millis(100)
    })
    .await;
}

#[tokio::test]
async fn flush_is_bounded_while_the_bus_is_unreachable() {
    let mut redis = RedisServer::start().await;
    let proxy = SilentProxy::to(&redis.url()).await;
    for bus in [&redis.url(), &proxy.url()].map(|url| Bus::open(url, None).expect("a valid URL")) {
        publish_many(&bus).await;
        proxy.silence();
        assert!(publish_many(&bus).await < SHUTDOWN_LIMIT);
        proxy.resume();
    }
    redis.kill();
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    assert!(publish_many(&bus).await < SHUTDOWN_LIMIT);
}

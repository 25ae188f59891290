//! Publications of somebody who leaves: they are waited for, but not for ever.

use std::time::{Duration, Instant};

use confab_common::bus::Bus;
use confab_common::testing::Wire;

use super::redis_server::RedisServer;
use super::{channel, local};

/// More than one pipeline has.
const MANY: usize = 1000;

async fn publish_many(bus: &Bus) -> Duration {
    let channel = channel("leaving");
    (0..MANY).for_each(|n| bus.publish(&*channel, n.to_string()));
    let begun = Instant::now();
    bus.flush().await;
    begun.elapsed()
}

async fn published(redis: &RedisServer) -> usize {
    let client = redis::Client::open(redis.url().expose()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let answer: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("an answer");
    let calls = answer.split_once("cmdstat_publish:calls=").and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test]
async fn all_is_published_when_a_flush_is_over() {
    let redis = RedisServer::start().await;
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    for round in 1..=3 {
        publish_many(&bus).await;
        assert_eq!(published(&redis).await, round * MANY);
    }
    // With nothing to wait for, too.
    let begun = Instant::now();
    bus.flush().await;
    local().flush().await;
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn nobody_waits_long_for_a_bus_that_is_away() {
    let mut redis = RedisServer::start().await;
    let wire = Wire::to(&redis.url()).await;
    for bus in [&redis.url(), &wire.url()].map(|url| Bus::open(url, None).expect("a valid URL")) {
        publish_many(&bus).await;
        wire.silence();
        assert!(publish_many(&bus).await < Duration::from_millis(1500));
        wire.carry();
    }
    redis.kill();
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    assert!(publish_many(&bus).await < Duration::from_millis(1500));
}

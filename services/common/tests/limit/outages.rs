//! Outages of Redis: acts hardly wait, this process decides alone, and afterwards the limits are shared again.

use std::time::{Duration, Instant};

use confab_common::limit::{Bucket, Rule};

use super::redis_server::RedisServer;
use super::{HOUR, eventually, open, until_shared};

const RULE: Rule = Rule { name: "outage", burst: 100, per: HOUR };
/// How long a check waits for Redis, and time for a timer.
const FIRST_LIMIT: Duration = Duration::from_millis(35);
const NEXT_LIMIT: Duration = Duration::from_millis(1);

async fn timed(bucket: &Bucket) -> (bool, Duration) {
    let begun = Instant::now();
    let is_allowed = bucket.check(1).await.is_allowed();
    (is_allowed, begun.elapsed())
}

/// Stops Redis and checks what follows. Returns the durations of the first check and of the slowest one after it.
async fn stopped() -> (Duration, Duration) {
    let redis = RedisServer::start().await;
    let limiter = open(&redis.url());
    until_shared(&limiter).await;
    let bucket = limiter.bucket(RULE, &[b"ada"]);
    for _ in 0..10 {
        assert!(bucket.check(1).await.is_allowed());
    }
    redis.signal("STOP");
    let (is_allowed, first) = timed(&bucket).await;
    assert!(is_allowed && !limiter.is_shared());
    let (mut admitted, mut slowest) = (11, Duration::ZERO);
    for _ in 0..200 {
        let (is_allowed, took) = timed(&bucket).await;
        admitted += usize::from(is_allowed);
        slowest = slowest.max(took);
    }
    assert_eq!(admitted, 100, "the limit applies, and includes what Redis has counted");
    let frequent = limiter.bucket(RULE, &[b"zoe"]);
    assert_eq!((0..200).filter(|_| frequent.take(1).is_allowed()).count(), 100);
    redis.signal("CONT");
    until_shared(&limiter).await;
    assert!(!bucket.check(1).await.is_allowed());
    (first, slowest)
}

#[tokio::test]
async fn stopped_redis_delays_one_check() {
    // On a busy machine, other processes delay the checks, too.
    eventually("checks are fast while Redis is stopped", async || {
        let (first, slowest) = stopped().await;
        first <= FIRST_LIMIT && slowest <= NEXT_LIMIT
    })
    .await;
}

#[tokio::test]
async fn limits_are_shared_again_within_two_seconds() {
    let mut redis = RedisServer::start().await;
    let (one, other) = (open(&redis.url()), open(&redis.url()));
    until_shared(&one).await;
    until_shared(&other).await;
    redis.kill();
    for limiter in [&one, &other] {
        assert!(limiter.bucket(RULE, &[b"ada"]).check(1).await.is_allowed());
        assert!(!limiter.is_shared());
    }
    redis.restart().await;
    let begun = Instant::now();
    until_shared(&one).await;
    until_shared(&other).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // On a busy machine, a check may have used the fallback; another key then shows that Redis counts.
    let mut tries = 0;
    eventually("one replica counts what the other admits", async || {
        tries += 1;
        let key = format!("key {tries}");
        let [one, other] = [&one, &other].map(|limiter| limiter.bucket(RULE, &[key.as_bytes()]));
        one.check(100).await.is_allowed() && !other.check(1).await.is_allowed()
    })
    .await;
}

#[tokio::test]
async fn redis_is_unreachable_at_start() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let limiter = open(&redis.url());
    let bucket = limiter.bucket(RULE, &[b"ada"]);
    assert_eq!((0..200).filter(|_| bucket.take(1).is_allowed()).count(), 100);
    assert!(!bucket.check(1).await.is_allowed() && !limiter.is_shared());
    redis.restart().await;
    until_shared(&limiter).await;
}

/// The server, or a load balancer before it, closes idle connections.
#[tokio::test]
async fn closed_connection_is_replaced() {
    let redis = RedisServer::start().await;
    let limiter = open(&redis.url());
    until_shared(&limiter).await;
    let ended: usize = redis.ask("CLIENT KILL TYPE normal SKIPME yes").await.expect("an answer");
    assert!(ended >= 1, "the limiter was connected");
    eventually("the limiter notices", async || !limiter.is_shared()).await;
    until_shared(&limiter).await;
}

//! Two replicas with one Redis.

use std::time::{Duration, Instant};

use confab_common::limit::{Decision, Rule};
use confab_common::testing;

use super::redis_server::RedisServer;
use super::{HOUR, eventually, key, patient};

/// Returns how often Redis was asked to charge a bucket, with the probes of the connections.
async fn charges(redis: &RedisServer) -> usize {
    let stats = redis.info("commandstats").await.expect("an answer");
    let calls = stats.split_once("cmdstat_evalsha:calls=").and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_callers_share_burst_and_rate() {
    let rule = Rule { name: "parallel", burst: 20, per: Duration::from_millis(10) };
    let (replicas, key) = ([patient(&testing::redis()).await, patient(&testing::redis()).await], key());
    let begun = Instant::now();
    let until = begun + Duration::from_secs(1);
    let callers = (0..50).map(|n| {
        let bucket = replicas[n % 2].bucket(rule, &[key.as_bytes()]);
        tokio::spawn(async move {
            let mut admitted = 0;
            while Instant::now() < until {
                match bucket.check(1).await {
                    Decision::Allowed { .. } => admitted += 1,
                    Decision::Limited { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            admitted
        })
    });
    let mut admitted = 0;
    for caller in callers.collect::<Vec<_>>() {
        admitted += caller.await.expect("no panic");
    }
    let most = 20 + begun.elapsed().as_millis() / 10;
    // A machine that stands still loses what refills above the burst.
    assert!((70..=most).contains(&admitted), "{admitted} admitted, at most {most} allowed");
}

#[tokio::test]
async fn all_replicas_share_failures_and_their_end() {
    let rule = Rule { name: "failures", burst: 3, per: HOUR };
    let (one, other, key) = (patient(&testing::redis()).await, patient(&testing::redis()).await, key());
    let [one, other] = [one, other].map(|replica| replica.bucket(rule, &[key.as_bytes()]));
    for remaining in [2, 1] {
        one.penalize(1).await;
        assert!(matches!(other.peek().await, Decision::Allowed { remaining: left, .. } if left == remaining));
    }
    other.penalize(1).await;
    assert!(!one.peek().await.is_allowed() && !other.peek().await.is_allowed());
    other.forget().await;
    assert!(matches!(other.peek().await, Decision::Allowed { remaining: 3, .. }));
}

#[tokio::test]
async fn frequent_acts_at_one_replica_limit_the_other() {
    let rule = Rule { name: "frequent", burst: 1000, per: Duration::from_millis(100) };
    let (url, key) = (testing::redis(), key());
    let (one, other, observer) = (patient(&url).await, patient(&url).await, patient(&url).await);
    let [one, other, observer] = [one, other, observer].map(|replica| replica.bucket(rule, &[key.as_bytes()]));
    assert_eq!((0..1000).filter(|_| one.take(1).is_allowed()).count(), 1000, "the first burst does not wait");
    eventually("the burst is reported", async || {
        matches!(observer.peek().await, Decision::Allowed { remaining: ..=500, .. } | Decision::Limited { .. })
    })
    .await;
    let mut admitted = 0;
    eventually("the other replica is limited", async || {
        let decision = other.take(1);
        admitted += usize::from(decision.is_allowed());
        !decision.is_allowed()
    })
    .await;
    assert!(admitted < 750, "{admitted} admitted after the burst of another replica");
}

#[tokio::test]
async fn frequent_acts_do_not_ask_redis_each_time() {
    let redis = RedisServer::start().await;
    let limiter = patient(&redis.url()).await;
    let before = charges(&redis).await;
    let bucket = limiter.bucket(Rule { name: "sends", burst: 4000, per: Duration::from_micros(500) }, &[b"ada"]);
    for _ in 0..20 {
        // The reports run in between.
        assert!((0..200).all(|_| bucket.take(1).is_allowed()));
        tokio::task::yield_now().await;
    }
    let asked = charges(&redis).await - before;
    assert!(asked <= 30, "{asked} requests for 4000 acts");
}

#[tokio::test]
async fn rejections_do_not_ask_redis() {
    let redis = RedisServer::start().await;
    let limiter = patient(&redis.url()).await;
    let bucket = limiter.bucket(Rule { name: "rejections", burst: 1, per: HOUR }, &[b"ada"]);
    assert!(bucket.check(1).await.is_allowed());
    let before = charges(&redis).await;
    for _ in 0..1000 {
        assert!(!bucket.check(1).await.is_allowed() && !bucket.peek().await.is_allowed());
    }
    let asked = charges(&redis).await - before;
    assert!(asked <= 10, "{asked} requests for 2000 rejections");
}

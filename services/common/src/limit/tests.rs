use tokio::time::advance;

use super::*;
use crate::Secret;
use Decision::{Allowed, Limited};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Rule = Rule { name: "minute", burst: 60, per: SECOND };
const PASSWORDS: Rule = Rule { name: "passwords", burst: 10, per: Duration::from_secs(30) };

fn local() -> Limiter {
    Limiter::open(&Bus::open(&Secret::from("local:"), None).unwrap(), None)
}

#[tokio::test(start_paused = true)]
async fn burst_is_followed_by_the_rate() {
    let limiter = local();
    assert!(limiter.is_shared());
    let bucket = limiter.bucket(MINUTE, &[b"a"]);
    for remaining in (0..60).rev() {
        assert_eq!(bucket.check(1).await, Allowed { remaining, reset: SECOND });
    }
    assert_eq!(bucket.check(1).await, Limited { remaining: 0, retry_after: SECOND });
    advance(Duration::from_millis(999)).await;
    assert_eq!(bucket.check(1).await, Limited { remaining: 0, retry_after: Duration::from_millis(1) });
    advance(Duration::from_millis(1)).await;
    assert!(bucket.check(1).await.is_allowed());
    assert!(!bucket.check(1).await.is_allowed());
    assert_eq!(limiter.bucket(MINUTE, &[b"b"]).check(60).await, Allowed { remaining: 0, reset: SECOND });
    advance(3600 * SECOND).await;
    assert_eq!(bucket.check(1).await, Allowed { remaining: 59, reset: SECOND });
}

#[tokio::test(start_paused = true)]
async fn frequent_acts_have_the_same_limit() {
    let bucket = local().bucket(MINUTE, &[b"a"]);
    assert_eq!((0..100).filter(|_| bucket.take(1).is_allowed()).count(), 60);
    assert_eq!(bucket.take(10), Limited { remaining: 0, retry_after: 10 * SECOND });
    advance(10 * SECOND).await;
    assert_eq!(bucket.take(10), Allowed { remaining: 0, reset: SECOND });
}

#[tokio::test(start_paused = true)]
async fn only_failures_are_charged_and_success_refills() {
    let bucket = local().bucket(PASSWORDS, &[b"ada", b"203.0.113.7"]);
    for _ in 0..100 {
        assert_eq!(bucket.peek().await, Allowed { remaining: 10, reset: Duration::ZERO });
    }
    for remaining in (1..10).rev() {
        assert_eq!(bucket.penalize(1).await, Allowed { remaining, reset: 30 * SECOND });
    }
    assert_eq!(bucket.penalize(1).await, Limited { remaining: 0, retry_after: 30 * SECOND });
    assert_eq!(bucket.peek().await, Limited { remaining: 0, retry_after: 30 * SECOND });
    advance(30 * SECOND).await;
    assert!(bucket.peek().await.is_allowed());
    assert!(!bucket.penalize(1).await.is_allowed());
    bucket.forget().await;
    assert_eq!(bucket.peek().await, Allowed { remaining: 10, reset: Duration::ZERO });
}

#[tokio::test(start_paused = true)]
async fn concurrent_failures_delay_the_next_act_like_one() {
    let bucket = local().bucket(PASSWORDS, &[b"ada"]);
    let failures = (0..100).map(|_| bucket.penalize(1));
    futures::future::join_all(failures).await;
    assert_eq!(bucket.peek().await, Limited { remaining: 0, retry_after: 30 * SECOND });
    advance(30 * SECOND).await;
    assert!(bucket.peek().await.is_allowed());
}

#[test]
fn keys_are_distinct_and_secret() {
    let limiter = local();
    let ids = [
        limiter.id("a", &[b"bc"]),
        limiter.id("ab", &[b"c"]),
        limiter.id("a", &[b"b", b"c"]),
        limiter.id("a", &[b"bc", b""]),
        Limiter { key: hmac::Key::new(hmac::HMAC_SHA256, b"another"), ..local() }.id("a", &[b"bc"]),
    ];
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
    assert_eq!(ids[0], local().id("a", &[b"bc"]), "all replicas use one key");
}

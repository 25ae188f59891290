//! What is in Redis, and what an account needs there.

use std::time::Duration;

use confab_common::Secret;
use confab_common::limit::Rule;

use super::redis_server::{RedisServer, connection};
use super::{HOUR, eventually, patient};

#[tokio::test]
async fn redis_contains_no_names_and_keys_expire() {
    let redis = RedisServer::start().await;
    let limiter = patient(&redis.url()).await;
    let rule = Rule { name: "login", burst: 10, per: Duration::from_millis(50) };
    let keys = async || redis.ask::<Vec<String>>("KEYS *").await.expect("an answer");
    let kept = |keys: &[String]| keys.iter().filter(|key| !key.ends_with(".probe")).cloned().collect::<Vec<_>>();
    assert!(limiter.bucket(rule, &[b"ada", b"203.0.113.7"]).check(10).await.is_allowed());
    // A slow machine may look only after the key has expired.
    if let [key] = &kept(&keys().await)[..] {
        let id = key.strip_prefix("confab.rl.{all}.").expect("the prefix that an ACL allows");
        assert!(id.len() == 22 && !key.contains("ada") && !key.contains("login") && !key.contains("203"), "{key}");
        let left = redis.ask::<i64>(&format!("PTTL {key}")).await.expect("an answer");
        assert!(left <= 500 && left != -1, "{left}");
    }
    eventually("all keys have expired", async || kept(&keys().await).is_empty()).await;
}

#[tokio::test]
async fn few_rights_suffice() {
    let rights = ["~confab.rl.*", "-@all", "+evalsha", "+eval", "+script|load", "+get", "+set", "+time"];
    let account = [&["--save", "", "--user", "limits", "on", ">secret"][..], &rights].concat();
    let redis = RedisServer::with(&account).await;
    let url = Secret::from(format!("redis://limits:secret@127.0.0.1:{}", redis.port()));
    let bucket = patient(&url).await.bucket(Rule { name: "rights", burst: 2, per: HOUR }, &[b"ada"]);
    assert!(bucket.check(1).await.is_allowed());
    bucket.penalize(1).await;
    assert!(!bucket.check(1).await.is_allowed());
    bucket.forget().await;
    assert!(bucket.check(2).await.is_allowed());
    let mut own = connection(&url).await.expect("a connection");
    let denied = redis::cmd("SET").arg("other").arg(1).query_async::<()>(&mut own).await.expect_err("no right");
    assert_eq!(denied.code(), Some("NOPERM"));
}

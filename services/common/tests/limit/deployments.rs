//! Redis as operators deploy it: a master that Sentinels name, and a cluster.

use confab_common::limit::Rule;
use confab_common::testing;
use redis::Value;

use super::redis_server::RedisServer;
use super::{HOUR, eventually, patient, until_shared};

const PLAIN: [&str; 4] = ["--save", "", "--appendonly", "no"];
const RULE: Rule = Rule { name: "deployment", burst: 3, per: HOUR };

#[tokio::test]
async fn limits_follow_the_master_that_sentinels_name() {
    let mut master = RedisServer::with(&PLAIN).await;
    let port = master.port().to_string();
    let replica = RedisServer::with(&[&PLAIN[..], &["--replicaof", "127.0.0.1", &port]].concat()).await;
    let file = testing::directory().join("sentinel.conf");
    let settings = format!(
        "sentinel monitor chat 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds chat 500\n\
         sentinel failover-timeout chat 2000\n"
    );
    std::fs::write(&file, settings).expect("a file");
    let sentinel = RedisServer::with(&[file.to_str().expect("UTF-8"), "--sentinel"]).await;
    eventually("the Sentinel has found the replica", async || {
        let known = sentinel.ask::<Vec<Value>>("SENTINEL replicas chat").await;
        let linked = replica.info("replication").await.is_ok_and(|info| info.contains("master_link_status:up"));
        linked && known.is_ok_and(|known| known.len() == 1)
    })
    .await;
    let limiter = patient(&format!("redis+sentinel://127.0.0.1:{}/chat/0", sentinel.port()).into()).await;
    assert!(limiter.bucket(RULE, &[b"ada"]).check(1).await.is_allowed());
    master.kill();
    eventually("the limiter notices the failure", async || !limiter.is_shared()).await;
    until_shared(&limiter).await;
    assert!(limiter.bucket(RULE, &[b"ada"]).check(1).await.is_allowed());
    assert!(replica.info("replication").await.is_ok_and(|info| info.contains("role:master")));
}

#[tokio::test]
async fn any_cluster_node_leads_to_the_buckets() {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let file = testing::directory().join("nodes.conf");
        let cluster = ["--cluster-enabled", "yes", "--cluster-config-file", file.to_str().expect("UTF-8")];
        nodes.push(RedisServer::with(&[&PLAIN[..], &cluster].concat()).await);
    }
    for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {slots}")).await.expect("slots");
        node.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port())).await.expect("a neighbour");
    }
    eventually("the cluster is complete", async || {
        let mut whole = 0;
        for node in &nodes {
            let info = node.ask::<String>("CLUSTER INFO").await.unwrap_or_default();
            whole += usize::from(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"));
        }
        whole == nodes.len()
    })
    .await;
    let mut buckets = Vec::new();
    for node in &nodes {
        buckets.push(patient(&node.url()).await.bucket(RULE, &[b"ada"]));
    }
    for bucket in &buckets {
        assert!(bucket.check(1).await.is_allowed());
    }
    for bucket in &buckets {
        assert!(!bucket.check(1).await.is_allowed());
    }
}

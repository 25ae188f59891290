//! Redis as operators deploy it: a master that Sentinels name, and a cluster.

use std::time::Duration;

use confab_common::bus::{Bus, Notice};
use confab_common::testing;
use redis::Value;
use tokio::time::timeout;

use super::outages::Pair;
use super::redis_server::RedisServer;
use super::{channel, eventually, listen, next, payload};

/// How long a published payload may take before it is published again.
const AGAIN: Duration = Duration::from_millis(200);
const PLAIN: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// Starts a Sentinel for this master; it needs no agreement with other Sentinels.
async fn sentinel(master: &RedisServer) -> RedisServer {
    let file = testing::directory().join("sentinel.conf");
    let settings = format!(
        "sentinel monitor chat 127.0.0.1 {} 1\nsentinel down-after-milliseconds chat 500\nsentinel failover-timeout chat 2000\n",
        master.port()
    );
    std::fs::write(&file, settings).expect("a file");
    RedisServer::with(&[file.to_str().expect("UTF-8"), "--sentinel"]).await
}

#[tokio::test]
async fn sentinels_name_the_master_before_and_after_failover() {
    let mut master = RedisServer::with(&PLAIN).await;
    let port = master.port().to_string();
    let replica = RedisServer::with(&[&PLAIN[..], &["--replicaof", "127.0.0.1", &port]].concat()).await;
    let sentinel = sentinel(&master).await;
    eventually("the Sentinel has found the replica", async || {
        let known = sentinel.ask::<Vec<Value>>("SENTINEL replicas chat").await;
        let linked = replica.info("replication").await.is_ok_and(|info| info.contains("master_link_status:up"));
        linked && known.is_ok_and(|known| known.len() == 1)
    })
    .await;
    // The first Sentinel does not exist.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/chat/0", sentinel.port()).into();
    let pair = Pair::at(&url).await;
    master.kill();
    pair.survives(async || {}).await;
    assert!(replica.info("replication").await.is_ok_and(|info| info.contains("role:master")));
}

#[tokio::test]
async fn any_cluster_node_reaches_all_listeners() {
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
    let bus =
        |node: &RedisServer| Bus::open(&node.url(), Some(&testing::cluster_key("a key").bus)).expect("a valid URL");
    let channel = channel("cluster");
    let mut listeners = Vec::new();
    for node in &nodes {
        listeners.push(listen(&bus(node), &[&channel]).await);
    }
    for node in &nodes {
        let (publisher, port) = (bus(node), node.port().to_string());
        for (_, notices) in &mut listeners {
            eventually("the node reaches the listener", async || {
                // A node drops what it cannot pass on while its links to the other nodes come up.
                publisher.publish(&*channel, port.clone());
                timeout(AGAIN, async { while payload(notices).await != port {} }).await.is_ok()
            })
            .await;
        }
    }
}

#[tokio::test]
async fn valkey_scheme_is_a_synonym() {
    let url = testing::redis().expose().replacen("redis://", "valkey://", 1).into();
    let (_subscriptions, mut notices) = Bus::open(&url, None).expect("a valid URL").listen();
    assert_eq!(next(&mut notices).await, Notice::Up);
}

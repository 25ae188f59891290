//! A gateway that shuts down: its sessions and its forwarded requests end without harm to any client.

use std::time::{Duration, Instant};

use anyhow::Context;
use confab_tests::api::{Account, Api};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::plan::{Member, Role};
use confab_tests::raw::{Client, Polling, WebSocket};
use confab_tests::wait::eventually;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

use crate::world;

/// Gateway 2 shuts down; gateway 1 stays.
const LEAVES: Member = (Role::Gateway, 2);

async fn stage(cluster: &Cluster) -> anyhow::Result<([Api; 2], Account, String)> {
    let gateways = <[Api; 2]>::try_from(world::gateways(cluster)).ok().context("two gateways")?;
    let account = gateways[0].signup().await?;
    let room = gateways[0].room(&account).await?;
    Ok((gateways, account, room))
}

/// Sends a GET of a session through a gateway.
async fn poll(at: &Api, sid: &str) -> anyhow::Result<(u16, String)> {
    let request = at.request(Method::GET, &format!("/socket.io/?EIO=4&transport=polling&sid={sid}"));
    let answer = at.send(request).await?;
    Ok((answer.status, String::from_utf8(answer.bytes)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_requests_end_gracefully_when_a_gateway_shuts_down() {
    let cluster = world::breakable().await;
    let ([stays, leaves], account, room) = stage(&cluster).await.unwrap();
    // Two sessions of the gateway that stays: one upgrades through the other gateway, one has a poll waiting there.
    let upgrading = Polling::connect(&stays.url, &account.token).await.unwrap();
    let mut tunnel = WebSocket::probe(&leaves.url, upgrading.sid()).await.unwrap().unwrap();
    tunnel.send("2probe").await.unwrap();
    assert_eq!(tunnel.receive().await.unwrap(), "3probe");
    tunnel.send("5").await.unwrap();
    assert_eq!(tunnel.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    let mut poller = Polling::connect(&stays.url, &account.token).await.unwrap();
    let sid = poller.sid().to_owned();

    let sent = tunnel.emit_later("message", &json!({"roomId": room, "content": "on its way"})).await.unwrap();
    // The client disconnects when the gateway requests it, so the shutdown need not wait for the client.
    let tunnelled = async move {
        assert_eq!(tunnel.ack(sent).await.unwrap()["ok"], true);
        tunnel.event("serverGoingAway").await.unwrap();
        tunnel.closed(Duration::from_secs(10)).await.unwrap()
    };
    let (left, code, polled) = tokio::join!(cluster.leave(LEAVES), tunnelled, poll(&leaves, &sid));
    left.unwrap();
    assert_eq!((code, polled.unwrap()), (Some(1000), (200, "6".into())));
    // The polling session remains at its gateway.
    assert_eq!(poller.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    cluster.start(LEAVES).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_client_of_a_draining_gateway_reads_the_rest_elsewhere() {
    let cluster = world::breakable().await;
    let ([stays, leaves], account, room) = stage(&cluster).await.unwrap();
    let mut poller = Polling::connect(&leaves.url, &account.token).await.unwrap();
    assert_eq!(poller.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    stays
        .post("/api/messages", &account, json!({"roomId": room, "content": "the rest"}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let fetched = async {
        let address = leaves.url.trim_start_matches("http://");
        let closed = async || TcpStream::connect(address).await.is_err().then_some(());
        eventually("it accepts no more connections", Duration::from_secs(10), closed).await.unwrap();
        let mut all = String::new();
        loop {
            match poll(&stays, poller.sid()).await.unwrap() {
                (200, payload) => all.push_str(&payload),
                over => return (all, over),
            }
        }
    };
    let (left, (all, over)) = tokio::join!(cluster.leave(LEAVES), fetched);
    left.unwrap();
    assert!(all.contains("the rest") && all.contains("serverGoingAway"), "{all}");
    assert_eq!(over, (400, r#"{"code":1,"message":"Session ID unknown"}"#.into()));
    cluster.start(LEAVES).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_it_at_once() {
    let server = Embedded::start(&[("CONFAB_ACCEPT_DRAIN", "60s")]).await.unwrap();
    let ready = format!("http://127.0.0.1:{}/readyz", server.admin_port());
    let http = reqwest::Client::new();
    let asked = Instant::now();
    assert!(server.daemon().signal(Signal::TERM));
    let leaving = async || (http.get(&ready).send().await.ok()?.status() == 503).then_some(());
    eventually("it is draining", Duration::from_secs(10), leaving).await.unwrap();
    let error = server.daemon().leave(Duration::from_secs(30)).await.unwrap_err();
    assert!(format!("{error:#}").contains("exit status: 1: "), "{error:#}");
    assert!(asked.elapsed() < Duration::from_secs(50), "it continued to accept for {:?}", asked.elapsed());
}

//! A gateway that stood still does not carry out what its clients have given up meanwhile.

use std::time::Duration;

use confab_tests::plan::Role;
use confab_tests::wait::eventually;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::world::{breakable, gateways};

/// Longer than the 2 s from which on a standstill counts as a pause.
const STANDSTILL: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_request_that_waited_during_a_standstill_changes_nothing() {
    let cluster = breakable().await;
    let apis = gateways(&cluster);
    let (owner, member) = (apis[1].signup().await.unwrap(), apis[1].signup().await.unwrap());
    let room = apis[1].room(&owner).await.unwrap();
    let path = format!("/api/rooms/{room}/members/{}", member.id);
    let add = || apis[1].call(Method::PUT, &path, Some(&owner), Some(json!({})));
    add().await.unwrap().expect(201).unwrap();

    let gateway = cluster.daemon((Role::Gateway, 1)).unwrap();
    assert!(gateway.signal(Signal::STOP));
    let address = cluster.plan.url((Role::Gateway, 1)).replace("http://", "");
    let remove = format!(
        "DELETE {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        owner.token
    );
    let mut client = TcpStream::connect(&address).await.unwrap();
    client.write_all(remove.as_bytes()).await.unwrap();
    // The client repeats the request at the other gateway, and then changes its mind.
    apis[1].call(Method::DELETE, &path, Some(&owner), None).await.unwrap().expect(204).unwrap();
    add().await.unwrap().expect(201).unwrap();
    sleep(STANDSTILL).await;
    assert!(gateway.signal(Signal::CONT));

    let mut answer = String::new();
    timeout(Duration::from_secs(10), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer}");
    let members = apis[1].get(&format!("/api/rooms/{room}/members"), &owner).await.unwrap().expect(200).unwrap();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(2), "{members}");

    let removes =
        async || apis[0].call(Method::DELETE, &path, Some(&owner), None).await.ok().map(|answer| answer.status);
    let removed = async || (removes().await == Some(204)).then_some(());
    eventually("the gateway accepts changes again", Duration::from_secs(10), removed).await.unwrap();
}

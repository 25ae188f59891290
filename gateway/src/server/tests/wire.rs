use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::serving;
use crate::testing::eventually;
use confab_socketio::net::Tally;
use confab_socketio::net::wire::{Answer, Delivery, Outcome};

/// More bytes than TCP accepts for a peer that does not read.
const LARGE: usize = 16 * 1024 * 1024;

/// The last answer of a server that watches its answers, and a client that has requested `bytes` bytes.
async fn asked(bytes: usize) -> (Arc<Mutex<Option<Answer>>>, TcpStream) {
    let last = Arc::<Mutex<Option<Answer>>>::default();
    let keep = last.clone();
    let route = get(move |Extension(tally): Extension<Tally>| async move {
        let answer = tally.answer().clone();
        answer.watch();
        *keep.lock() = Some(answer);
        vec![b'x'; bytes]
    });
    let (address, ..) = serving(Router::new().route("/", route), &[]).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    ask(&mut client).await;
    (last, client)
}

async fn ask(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'H');
}

fn taken(last: &Mutex<Option<Answer>>) -> Answer {
    last.lock().take().unwrap()
}

#[tokio::test]
async fn an_acknowledged_answer_is_delivered_although_the_connection_ends() {
    let (last, client) = asked(100).await;
    let answer = taken(&last);
    assert_eq!(answer.outcome().await, Outcome::Delivered);
    drop(client);
    eventually(|| answer.wire().is_closed()).await;
    assert_eq!(answer.delivery(), Delivery::Delivered);
}

#[tokio::test]
async fn an_unread_answer_is_lost_when_the_connection_ends() {
    let (last, client) = asked(LARGE).await;
    let answer = taken(&last);
    assert_eq!(answer.delivery(), Delivery::UnderWay);
    drop(client);
    eventually(|| answer.delivery() == Delivery::Lost).await;
    assert_eq!(answer.outcome().await, Outcome::Lost);
}

#[tokio::test]
async fn the_next_request_proves_delivery() {
    let (last, mut client) = asked(LARGE).await;
    let first = taken(&last);
    assert_eq!(first.outcome().await, Outcome::Lost);
    // Only the body contains the letter x.
    let (mut left, mut bytes) = (LARGE, vec![0; 1 << 20]);
    while left > 0 {
        let read = client.read(&mut bytes).await.unwrap();
        left -= bytes[..read].iter().filter(|byte| **byte == b'x').count();
    }
    assert_eq!(first.outcome().await, Outcome::Delivered);
    ask(&mut client).await;
    assert_eq!(first.delivery(), Delivery::Delivered);
    let second = taken(&last);
    drop(client);
    eventually(|| second.delivery() == Delivery::Lost).await;
    assert_eq!(first.delivery(), Delivery::Delivered);
}

//! What is held for requests over real connections is counted, and can be freed.

use axum::extract::Request;
use axum::routing::{get, post};

use super::*;
use crate::edge::{TraceTrust, around, body, cors::Origins, hosts::Hosts};
use crate::testing::eventually;

const LARGE: usize = 8 * 1024 * 1024;

/// A client that takes little from the network at once, and has asked a server for a large answer, when all of it is counted.
async fn slow_reader(memory: &Arc<Memory>) -> TcpStream {
    let large = Router::new().route("/", get(|| async { vec![b'x'; LARGE] }));
    let (address, ..) = serving_counted(large, &[], memory.clone()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    eventually(|| memory.bytes() == LARGE).await;
    client
}

#[tokio::test]
async fn an_answer_is_counted_until_its_client_has_taken_it() {
    let memory = Arc::<Memory>::default();
    let mut client = slow_reader(&memory).await;
    let (holder, _) = memory.largest().pop().unwrap();
    assert_eq!(holder, Holder::Address(client.peer_addr().unwrap().ip().into()));
    let mut taken = vec![0; LARGE - 4 * MAX_UNSENT as usize];
    client.read_exact(&mut taken).await.unwrap();
    assert_eq!(memory.bytes(), LARGE, "the system keeps little of it");
    taken.clear();
    client.read_to_end(&mut taken).await.unwrap();
    eventually(|| memory.bytes() == 0).await;
}

#[tokio::test]
async fn a_connection_that_does_not_read_can_be_cut() {
    let memory = Arc::<Memory>::default();
    let mut client = slow_reader(&memory).await;
    let (_, share) = memory.largest().pop().unwrap();
    share.held().into_iter().for_each(|(_, connection)| connection.upgrade().unwrap().cut());
    eventually(|| memory.bytes() == 0).await;
    assert!(client.read_to_end(&mut Vec::new()).await.is_err(), "reset");
}

#[tokio::test]
async fn a_head_is_counted_while_it_arrives() {
    let memory = Arc::<Memory>::default();
    let (slow, reached, go_on) = slow();
    let (address, ..) = serving_counted(Router::new().route("/", slow), &[], memory.clone()).await;
    let half = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}", "x".repeat(20_000));
    let mut client = sent(address, &half).await;
    eventually(|| memory.bytes() == half.len()).await;
    client.write_all(b"\r\nconnection: close\r\n\r\n").await.unwrap();
    reached.notified().await;
    eventually(|| memory.bytes() == 0).await;
    go_on.notify_one();
    assert!(read_all(client).await.ends_with("done"));
    let gone = sent(address, &half).await;
    eventually(|| memory.bytes() == half.len()).await;
    drop(gone);
    eventually(|| memory.bytes() == 0).await;
}

#[tokio::test]
async fn a_body_is_counted_while_it_arrives() {
    let memory = Arc::<Memory>::default();
    let read = post(async |request: Request| body::read(request, 1_000_000).await.map(drop).map_err(Problem));
    let routes = around(Router::new().route("/", read), Origins::new(None, true), Hosts::new(&[], true), TraceTrust::LinkOnly);
    let (address, ..) = serving_counted(routes, &[], memory.clone()).await;
    let mut client = sent(address, "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 300000\r\n\r\n").await;
    client.write_all(&[b'x'; 200_000]).await.unwrap();
    eventually(|| memory.bytes() >= 200_000).await;
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    assert!(read_all(client).await.starts_with("HTTP/1.1 200 OK"));
    eventually(|| memory.bytes() == 0).await;
}

//! The bytes held for requests over real connections are counted and can be freed.

use axum::extract::Request;
use axum::routing::{get, post};

use super::*;
use crate::edge::{TraceTrust, around, body, cors::Origins, hosts::Hosts};
use crate::testing::eventually;
use confab_socketio::net::SharedBody;

const LARGE: usize = 8 * 1024 * 1024;

/// A client with a small receive buffer that has requested a large answer, after the server has counted all of it.
async fn slow_reader(budget: &Arc<Budget>) -> TcpStream {
    let large = Router::new().route("/", get(|| async { vec![b'x'; LARGE] }));
    let (address, ..) = serving_counted(large, &[], budget.clone()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    eventually(|| budget.bytes() == LARGE).await;
    client
}

#[tokio::test]
async fn an_answer_counts_until_its_client_has_read_it() {
    let budget = Arc::<Budget>::default();
    let mut client = slow_reader(&budget).await;
    let (holder, _) = budget.largest().pop().unwrap();
    assert_eq!(holder, Holder::Address(client.peer_addr().unwrap().ip().into()));
    let mut taken = vec![0; LARGE - 16 * MAX_UNSENT as usize];
    client.read_exact(&mut taken).await.unwrap();
    assert_eq!(budget.bytes(), LARGE, "the operating system queues little of it");
    taken.clear();
    client.read_to_end(&mut taken).await.unwrap();
    eventually(|| budget.bytes() == 0).await;
}

#[tokio::test]
async fn a_connection_that_does_not_read_can_be_closed() {
    let budget = Arc::<Budget>::default();
    let mut client = slow_reader(&budget).await;
    let (_, share) = budget.largest().pop().unwrap();
    share.held().into_iter().for_each(|(_, connection)| connection.upgrade().unwrap().cut());
    eventually(|| budget.bytes() == 0).await;
    assert!(client.read_to_end(&mut Vec::new()).await.is_err(), "reset");
}

/// The beginning of a request with a long head.
fn half() -> String {
    format!("GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.7\r\nx-long: {}", "x".repeat(20_000))
}

#[tokio::test]
async fn a_head_counts_until_the_request_is_answered() {
    let budget = Arc::<Budget>::default();
    let (slow, reached, go_on) = slow();
    let (address, ..) = serving_counted(Router::new().route("/", slow), &[], budget.clone()).await;
    let mut client = sent(address, &half()).await;
    eventually(|| budget.bytes() == half().len()).await;
    client.write_all(b"\r\nconnection: close\r\n\r\n").await.unwrap();
    reached.notified().await;
    eventually(|| budget.bytes() == half().len() + 23).await;
    go_on.notify_one();
    assert!(read_all(client).await.ends_with("done"));
    eventually(|| budget.bytes() == 0).await;
    let gone = sent(address, &half()).await;
    eventually(|| budget.bytes() == half().len()).await;
    drop(gone);
    eventually(|| budget.bytes() == 0).await;
}

#[tokio::test]
async fn a_head_counts_for_the_client_behind_a_proxy() {
    let budget = Arc::<Budget>::default();
    let (slow, reached, go_on) = slow();
    let routes = Router::new().route("/", slow);
    let (address, ..) = serving_counted(routes, &["--trusted-proxies", "127.0.0.1"], budget.clone()).await;
    let client = sent(address, &(half() + "\r\nconnection: close\r\n\r\n")).await;
    reached.notified().await;
    let (holder, _) = budget.largest().pop().unwrap();
    assert_eq!(holder, Holder::Address(std::net::IpAddr::from([192, 0, 2, 7]).into()));
    go_on.notify_one();
    assert!(read_all(client).await.ends_with("done"));
    eventually(|| budget.bytes() == 0).await;
}

#[tokio::test]
async fn a_pending_request_ends_with_its_connection() {
    let budget = Arc::<Budget>::default();
    let (slow, reached, _go_on) = slow();
    let (address, ..) = serving_counted(Router::new().route("/", slow), &[], budget.clone()).await;
    let mut client = sent(address, &format!("{}\r\n\r\n", half())).await;
    reached.notified().await;
    client.write_all(b"GET / HTTP/1.1\r\nx-pad: bbbb").await.unwrap();
    let (_, share) = budget.largest().pop().unwrap();
    share
        .held()
        .into_iter()
        .for_each(|(_, connection)| _ = connection.upgrade().inspect(|connection| connection.cut()));
    assert_eq!(client.read(&mut [0; 9]).await.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    eventually(|| budget.bytes() == 0).await;
}

#[tokio::test]
async fn a_shared_body_is_not_counted() {
    let budget = Arc::<Budget>::default();
    static SHARED: [u8; 100_000] = [b'x'; 100_000];
    let shared = get(|| async { (axum::Extension(SharedBody), &SHARED[..]) });
    let (address, ..) = serving_counted(Router::new().route("/", shared), &[], budget.clone()).await;
    let mut client = sent(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(client.read_u8().await.unwrap(), b'H');
    assert_eq!(budget.bytes(), 0);
}

#[tokio::test]
async fn a_body_counts_while_it_arrives() {
    let budget = Arc::<Budget>::default();
    let read = post(async |request: Request| body::read(request, 1_000_000).await.map(drop).map_err(Problem));
    let routes =
        around(Router::new().route("/", read), Origins::new(None, true), Hosts::new(&[], true), TraceTrust::LinkOnly);
    let (address, ..) = serving_counted(routes, &[], budget.clone()).await;
    let mut client = sent(address, "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 300000\r\n\r\n").await;
    client.write_all(&[b'x'; 200_000]).await.unwrap();
    eventually(|| budget.bytes() >= 200_000).await;
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    // The bytes are released although the connection stays open.
    eventually(|| budget.bytes() == 0).await;
}

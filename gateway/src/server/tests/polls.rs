//! Polls with lost, repeated or unread answers, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use confab_socketio::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::serving;
use crate::chat::client::Socket;
use crate::chat::testing::World;
use crate::testing::bus;

/// A polling client with one session, over HTTP.
struct Polls {
    world: World,
    address: SocketAddr,
    session: Arc<Socket>,
    pushed: u32,
}

impl Polls {
    async fn new() -> Self {
        let world = World::new(bus()).await;
        let (address, ..) = serving(confab_socketio::routes(&world.server), &[]).await;
        let session = world.client().socket;
        world.chat.registry.identify(&session, uuid::Uuid::from_u128(1));
        let polls = Self { world, address, session, pushed: 0 };
        polls.get(&mut polls.connect().await, "first").await;
        polls
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Queues one more packet for the client.
    fn push_packet(&mut self) -> String {
        self.pushed += 1;
        let packet = format!("4packet {}", self.pushed);
        self.session.outbox.push(Frame::engine(&packet));
        packet
    }

    async fn send(&self, connection: &mut TcpStream, t: &str) {
        let t = if t.is_empty() { String::new() } else { format!("&t={t}") };
        let target = format!("/socket.io/?EIO=4&transport=polling&sid={}{t}", self.session.sid());
        connection.write_all(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    }

    async fn get(&self, connection: &mut TcpStream, t: &str) -> String {
        self.send(connection, t).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        connection.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Queues more bytes than TCP accepts, and polls without reading the answer.
    async fn leave_unread(&self, t: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(self.address).await.unwrap();
        self.session.outbox.push(Frame::engine(&"x".repeat(500_000)));
        self.send(&mut connection, t).await;
        assert_eq!(connection.read_u8().await.unwrap(), b'H');
        connection
    }
}

/// Values of `t` of stock clients in .NET and Unity, Dart, Python, Rust and JavaScript.
fn stamps() -> Vec<String> {
    let now = jiff::Timestamp::now();
    let clocks = [now.as_second().to_string(), now.as_millisecond().to_string(), format!("{}.25", now.as_second())];
    clocks.into_iter().chain(["3421780262", "7hw2kq3x", "PeJ9Xz1.0", "1"].map(String::from)).collect()
}

#[tokio::test]
async fn a_delivered_answer_is_never_repeated() {
    for t in stamps() {
        let mut polls = Polls::new().await;
        let mut kept = polls.connect().await;
        for _ in 0..20 {
            let packet = polls.push_packet();
            assert_eq!(polls.get(&mut kept, &t).await, packet, "{t}");
            let packet = polls.push_packet();
            assert_eq!(polls.get(&mut polls.connect().await, &t).await, packet, "{t}");
        }
    }
}

#[tokio::test]
async fn an_answer_lost_with_its_connection_is_repeated() {
    for t in ["3421780262", "7hw2kq3x", "PeJ9Xz1.0"] {
        let mut polls = Polls::new().await;
        let lost = polls.leave_unread(t).await;
        drop(lost);
        polls.push_packet();
        let again = polls.get(&mut polls.connect().await, t).await;
        assert!(again.len() == 500_000 && again.starts_with("xxx"), "{t}: {}", again.len());
        assert_eq!(polls.get(&mut polls.connect().await, t).await, "4packet 1", "{t}");
    }
}

#[tokio::test]
async fn an_unacknowledged_answer_is_repeated() {
    let polls = Polls::new().await;
    let _deaf = polls.leave_unread("7hw2kq3x").await;
    assert_eq!(polls.get(&mut polls.connect().await, "7hw2kq3x").await.len(), 500_000);
}

#[tokio::test]
async fn a_lost_answer_ends_the_session_of_a_client_with_clock_stamps() {
    let polls = Polls::new().await;
    let t = jiff::Timestamp::now().as_second().to_string();
    drop(polls.leave_unread(&t).await);
    assert_eq!(polls.get(&mut polls.connect().await, &t).await, r#"{"code":1,"message":"Session ID unknown"}"#);
    assert!(polls.world.chat.registry.get(polls.session.sid()).is_none());
}

#[tokio::test]
async fn concurrent_polls_with_one_stamp_receive_the_same_answer() {
    for t in stamps() {
        let mut polls = Polls::new().await;
        let (mut first, mut second) = (polls.connect().await, polls.connect().await);
        let answers = {
            let mut both = Box::pin(async { tokio::join!(polls.get(&mut first, &t), polls.get(&mut second, &t)) });
            assert!(timeout(Duration::from_millis(100), &mut both).await.is_err());
            polls.session.outbox.push(Frame::engine("4once"));
            both.await
        };
        assert_eq!(answers, ("4once".into(), "4once".into()), "{t}");
        let packet = polls.push_packet();
        assert_eq!(polls.get(&mut second, &t).await, packet, "{t}");
    }
}

#[tokio::test]
async fn a_session_that_polls_without_reading_answers_ends() {
    for (first, next) in [("1", "2"), ("", ""), ("7hw2kq3x", "")] {
        let polls = Polls::new().await;
        let _deaf = polls.leave_unread(first).await;
        polls.session.outbox.push(Frame::engine("4more"));
        assert_eq!(
            polls.get(&mut polls.connect().await, next).await,
            r#"{"code":1,"message":"Session ID unknown"}"#,
            "{first}"
        );
        assert!(polls.world.chat.registry.get(polls.session.sid()).is_none());
    }
}

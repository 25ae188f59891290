use std::net::SocketAddr;

use confab_socketio::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::*;
use crate::realtime::testing::{AWAY, World, address, connect};
use crate::server::tests::serving;
use crate::testing::{bus, eventually};

async fn payload(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_draining_gateway_refuses_new_sessions() {
    let world = World::new(bus()).await;
    world.edge.leaving.send_replace(Some(Duration::ZERO));
    assert_eq!(open(&world.edge, address(1), None).await.err(), Some(Refusal::GoingAway));
    assert_eq!(world.edge.registry.len(), 0);
}

#[tokio::test]
async fn a_session_begins_with_its_first_packet_also_after_a_pause() {
    let world = World::new(bus()).await;
    world.revoked.store(AWAY, std::sync::atomic::Ordering::SeqCst);
    world.edge.revocations.pauses().stand_still();
    let mut opening = Box::pin(open(&world.edge, address(1), None));
    assert!(timeout(Duration::from_millis(100), &mut opening).await.is_err());
    world.revoked.store(0, std::sync::atomic::Ordering::SeqCst);
    assert!(payload(opening.await.unwrap()).await.starts_with(b"0{"));
}

#[tokio::test]
async fn what_is_kept_for_a_poll_that_is_sent_again_is_bounded_with_all_that_is_held() {
    let world = World::with(bus(), &["--max-outbox-bytes", "600000"], 1).await;
    let [idle, polling, other] = [1, 2, 3].map(|user| world.known(user));
    for session in [&idle, &polling] {
        session.outbox.push(Frame::engine(&"x".repeat(250_000)));
        poll(session.clone(), Some("a"), Way::Unknown).await.unwrap();
    }
    // This client has the answer: it polls again.
    let mut next = Box::pin(poll(polling.clone(), Some("b"), Way::Unknown));
    assert!(timeout(Duration::from_millis(10), &mut next).await.is_err());
    other.outbox.push(Frame::engine(&"x".repeat(200_000)));
    tokio::task::yield_now().await;
    assert_eq!([&idle, &polling, &other].map(|session| session.outbox.closing()), [None; 3]);
    polling.outbox.push(Frame::engine(&"x".repeat(200_000)));
    eventually(|| idle.outbox.closing() == Some(Close::Now)).await;
    assert_eq!(idle.outbox.bytes(), 0);
    assert_eq!([&polling, &other].map(|session| session.outbox.closing()), [None; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_fetch_its_frames_is_closed() {
    let world = World::with(bus(), &["--ping-interval", "1h", "--connect-timeout", "0s"], 1).await;
    let opened = payload(open(&world.edge, address(1), None).await.unwrap()).await;
    let session = world.edge.registry.all().pop().unwrap();
    assert!(opened.starts_with(b"0{"));
    // Nothing waits, so the session may take its time.
    sleep(10 * STUCK).await;
    session.outbox.push(Frame::engine("4"));
    assert_eq!(payload(poll(session.clone(), Some("a"), Way::Unknown).await.unwrap()).await, "4");
    let fetched = Instant::now();
    session.outbox.push(Frame::engine("4"));
    // A POST does not show that the client reads.
    for _ in 0..3 {
        sleep(STUCK / 4).await;
        receive(session.clone(), Body::from("3")).await.unwrap();
    }
    assert_eq!(session.outbox.closing(), None);
    while session.outbox.closing().is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!((STUCK..STUCK * 2).contains(&fetched.elapsed()), "{:?}", fetched.elapsed());
    assert_eq!(world.edge.registry.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn frames_that_waited_for_an_upgrade_do_not_close_the_session_later() {
    let world = World::with(bus(), &["--ping-interval", "1h", "--connect-timeout", "0s"], 1).await;
    open(&world.edge, address(1), None).await.unwrap();
    let session = world.edge.registry.all().pop().unwrap();
    session.receive(&connect(serde_json::json!({}))).unwrap();
    eventually(|| !session.outbox.is_empty()).await;
    assert!(session.begin_probe());
    sleep(STUCK / 2).await;
    assert!(session.upgrade());
    sleep(2 * STUCK).await;
    assert_eq!((session.outbox.closing(), world.edge.registry.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_fetches_now_and_then_lives() {
    let world = World::with(bus(), &["--ping-interval", "1h", "--connect-timeout", "0s"], 1).await;
    open(&world.edge, address(1), None).await.unwrap();
    let session = world.edge.registry.all().pop().unwrap();
    for _ in 0..20 {
        session.outbox.push(Frame::engine("4"));
        sleep(STUCK - Duration::from_secs(1)).await;
        poll(session.clone(), None, Way::Unknown).await.unwrap();
    }
    assert_eq!(session.outbox.closing(), None);
}

#[tokio::test]
async fn a_payload_before_connect_is_small_and_counted_while_it_arrives() {
    let world = World::new(bus()).await;
    let session = world.client().session;
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(futures::stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body))));
    let receiving = tokio::spawn(receive(session.clone(), body));
    sender.send(Ok(Bytes::from(vec![b'6'; 10_000]))).await.unwrap();
    eventually(|| session.outbox.bytes() > 10_000).await;
    // Other payloads of the session have to fit besides it.
    assert_eq!(receive(session.clone(), Body::from(vec![b'6'; 10_000])).await.err(), Some(Refusal::TooLarge));
    assert_eq!(receiving.await.unwrap().err(), Some(Refusal::BadRequest), "the session is over");
    assert!(session.outbox.bytes() < 1000);
}

/// A client with one session, over HTTP.
struct Polls {
    world: World,
    address: SocketAddr,
    session: Arc<Session>,
    said: u32,
}

impl Polls {
    async fn new() -> Self {
        let world = World::new(bus()).await;
        let (address, ..) = serving(world.edge.router(), &[]).await;
        let session = world.client().session;
        session.outbox.is_known();
        let polls = Self { world, address, session, said: 0 };
        polls.get(&mut polls.connect().await, "first").await;
        polls
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Queues one more packet for the client.
    fn say(&mut self) -> String {
        self.said += 1;
        let packet = format!("4packet {}", self.said);
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

    /// Queues more than TCP accepts for a client that reads nothing.
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

/// Stamps as stock clients of .NET and Unity, Dart, Python, Rust and JavaScript make them.
fn stamps() -> Vec<String> {
    let now = jiff::Timestamp::now();
    let clocks = [now.as_second().to_string(), now.as_millisecond().to_string(), format!("{}.25", now.as_second())];
    clocks.into_iter().chain(["3421780262", "7hw2kq3x", "PeJ9Xz1.0", "1"].map(String::from)).collect()
}

#[tokio::test]
async fn an_answer_that_arrived_is_not_given_again_whatever_the_next_poll_bears() {
    for t in stamps() {
        let mut polls = Polls::new().await;
        let mut kept = polls.connect().await;
        for _ in 0..20 {
            let said = polls.say();
            assert_eq!(polls.get(&mut kept, &t).await, said, "{t}");
            let said = polls.say();
            assert_eq!(polls.get(&mut polls.connect().await, &t).await, said, "{t}");
        }
    }
}

#[tokio::test]
async fn an_answer_lost_with_its_connection_is_given_again() {
    for t in ["3421780262", "7hw2kq3x", "PeJ9Xz1.0"] {
        let mut polls = Polls::new().await;
        let lost = polls.leave_unread(t).await;
        drop(lost);
        polls.say();
        let again = polls.get(&mut polls.connect().await, t).await;
        assert!(again.len() == 500_000 && again.starts_with("xxx"), "{t}: {}", again.len());
        assert_eq!(polls.get(&mut polls.connect().await, t).await, "4packet 1", "{t}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_arrive_is_given_again_though_its_connection_lives() {
    let polls = Polls::new().await;
    let _deaf = polls.leave_unread("7hw2kq3x").await;
    assert_eq!(polls.get(&mut polls.connect().await, "7hw2kq3x").await.len(), 500_000);
}

#[tokio::test]
async fn a_session_ends_when_its_client_stamps_with_a_clock_and_may_have_lost_an_answer() {
    let polls = Polls::new().await;
    let t = jiff::Timestamp::now().as_second().to_string();
    drop(polls.leave_unread(&t).await);
    assert_eq!(polls.get(&mut polls.connect().await, &t).await, r#"{"code":1,"message":"Session ID unknown"}"#);
    assert!(polls.world.edge.registry.get(polls.session.sid()).is_none());
}

#[tokio::test]
async fn a_poll_that_comes_again_while_the_first_waits_gets_the_same() {
    for t in stamps() {
        let mut polls = Polls::new().await;
        let (mut first, mut second) = (polls.connect().await, polls.connect().await);
        let said = {
            let mut both = Box::pin(async { tokio::join!(polls.get(&mut first, &t), polls.get(&mut second, &t)) });
            assert!(timeout(Duration::from_millis(100), &mut both).await.is_err());
            polls.session.outbox.push(Frame::engine("4once"));
            both.await
        };
        assert_eq!(said, ("4once".into(), "4once".into()), "{t}");
        let said = polls.say();
        assert_eq!(polls.get(&mut second, &t).await, said, "{t}");
    }
}

#[tokio::test]
async fn a_session_whose_client_polls_on_without_taking_its_answers_ends() {
    for (first, next) in [("1", "2"), ("", ""), ("7hw2kq3x", "")] {
        let polls = Polls::new().await;
        let _deaf = polls.leave_unread(first).await;
        polls.session.outbox.push(Frame::engine("4more"));
        assert_eq!(polls.get(&mut polls.connect().await, next).await, r#"{"code":1,"message":"Session ID unknown"}"#, "{first}");
        assert!(polls.world.edge.registry.get(polls.session.sid()).is_none());
    }
}

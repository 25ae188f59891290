use confab_common::standstill::{self, PauseDetector};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::*;
use crate::budget::Budget;
use crate::config::Config;
use crate::frame::Frame;
use crate::registry::Registry;
use crate::testing::{Silent, address, eventually, known, server};

/// A server whose ping interval and connect timeout exceed the duration of a test.
fn patient() -> Arc<Server<Silent>> {
    const LONG: Duration = Duration::from_secs(3600);
    server(Config { ping_interval: LONG, connect_timeout: LONG, ..Config::default() }, usize::MAX)
}

async fn payload(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_draining_server_rejects_new_sessions() {
    let server = server(Config::default(), usize::MAX);
    server.drain(Duration::ZERO).await;
    assert_eq!(open(&server, address(1), &HeaderMap::new()).await.err(), Some(Refusal::GoingAway));
    assert_eq!(server.registry.count(), 0);
}

#[tokio::test]
async fn a_session_opened_during_a_pause_receives_its_first_packet() {
    let pauses = Arc::<PauseDetector>::default();
    let registry = Arc::new(Registry::new(Arc::new(Budget::new(usize::MAX, pauses.clone()))));
    let server = Server::new(Arc::new(Silent), Config::default(), registry);
    pauses.stand_still();
    let headers = HeaderMap::new();
    let mut opening = Box::pin(open(&server, address(1), &headers));
    assert!(timeout(Duration::from_millis(100), &mut opening).await.is_err());
    assert!(pauses.resume(standstill::now()));
    server.registry.all().iter().for_each(|session| session.outbox.nudge());
    assert!(payload(opening.await.unwrap()).await.starts_with(b"0{"));
}

#[tokio::test]
async fn bytes_kept_for_a_repeated_poll_count_in_the_memory_limit() {
    let server = server(Config::default(), 600_000);
    let [idle, polling, other] = [1, 2, 3].map(|owner| known(&server, owner));
    for session in [&idle, &polling] {
        session.outbox.push(Frame::engine(&"x".repeat(250_000)));
        poll(&server, session.clone(), Some("a"), Route::Unknown).await.unwrap();
    }
    // This client polls again, so it has received the answer.
    let mut next = Box::pin(poll(&server, polling.clone(), Some("b"), Route::Unknown));
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
    let server = patient();
    let opened = payload(open(&server, address(1), &HeaderMap::new()).await.unwrap()).await;
    let session = server.registry.all().pop().unwrap();
    assert!(opened.starts_with(b"0{"));
    // No frame is queued, so the session need not poll.
    sleep(10 * READ_STALL_LIMIT).await;
    session.outbox.push(Frame::engine("4"));
    assert_eq!(payload(poll(&server, session.clone(), Some("a"), Route::Unknown).await.unwrap()).await, "4");
    let fetched = Instant::now();
    session.outbox.push(Frame::engine("4"));
    // A POST does not prove that the client reads.
    for _ in 0..3 {
        sleep(READ_STALL_LIMIT / 4).await;
        receive(&server, session.clone(), Body::from("3")).await.unwrap();
    }
    assert_eq!(session.outbox.closing(), None);
    while session.outbox.closing().is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!((READ_STALL_LIMIT..READ_STALL_LIMIT * 2).contains(&fetched.elapsed()), "{:?}", fetched.elapsed());
    assert_eq!(server.registry.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn frames_queued_before_an_upgrade_do_not_close_the_session() {
    let server = patient();
    open(&server, address(1), &HeaderMap::new()).await.unwrap();
    let session = server.registry.all().pop().unwrap();
    server.receive(&session, "40").unwrap();
    assert!(!session.outbox.is_empty());
    assert!(session.begin_probe());
    sleep(READ_STALL_LIMIT / 2).await;
    assert!(session.upgrade());
    sleep(2 * READ_STALL_LIMIT).await;
    assert_eq!((session.outbox.closing(), server.registry.count()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_polls_within_the_limit_stays_open() {
    let server = patient();
    open(&server, address(1), &HeaderMap::new()).await.unwrap();
    let session = server.registry.all().pop().unwrap();
    for _ in 0..20 {
        session.outbox.push(Frame::engine("4"));
        sleep(READ_STALL_LIMIT - Duration::from_secs(1)).await;
        poll(&server, session.clone(), None, Route::Unknown).await.unwrap();
    }
    assert_eq!(session.outbox.closing(), None);
}

#[tokio::test]
async fn a_payload_before_connect_is_small_and_counted_while_it_arrives() {
    let server = server(Config::default(), usize::MAX);
    let session = crate::testing::open(&server, 1);
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body =
        Body::from_stream(futures::stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body))));
    let receiving = tokio::spawn({
        let (server, session) = (server.clone(), session.clone());
        async move { receive(&server, session, body).await }
    });
    sender.send(Ok(Bytes::from(vec![b'6'; 10_000]))).await.unwrap();
    eventually(|| session.outbox.bytes() > 10_000).await;
    // The limit applies to all payloads of the session together.
    assert_eq!(receive(&server, session.clone(), Body::from(vec![b'6'; 10_000])).await.err(), Some(Refusal::TooLarge));
    assert_eq!(receiving.await.unwrap().err(), Some(Refusal::BadRequest), "the session has ended");
    assert!(session.outbox.bytes() < 1000);
}

#[tokio::test]
async fn without_a_tracking_server_no_packet_is_sent_twice() {
    let server = server(Config::default(), usize::MAX);
    let session = known(&server, 1);
    for packet in ["4a", "4b", "4c"] {
        session.outbox.push(Frame::engine(packet));
        let answer = poll(&server, session.clone(), Some("the same"), Route::Untracked).await.unwrap();
        assert_eq!(payload(answer).await, packet);
    }
}

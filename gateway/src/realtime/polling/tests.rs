use http_body_util::BodyExt;

use super::*;
use crate::realtime::packet::Frame;
use crate::realtime::testing::{AWAY, World};
use crate::testing::{bus, eventually};

async fn payload(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn who_comes_as_the_gateway_leaves_is_refused() {
    let world = World::new(bus()).await;
    world.edge.leaving.send_replace(Some(Duration::ZERO));
    assert_eq!(open(&world.edge, None).await.err(), Some(Refusal::GoingAway));
    assert_eq!(world.edge.registry.len(), 0);
}

#[tokio::test]
async fn a_session_begins_with_its_first_packet_also_after_a_pause() {
    let world = World::new(bus()).await;
    world.revoked.store(AWAY, std::sync::atomic::Ordering::SeqCst);
    world.edge.revocations.pulse().stand_still();
    let mut opening = Box::pin(open(&world.edge, None));
    assert!(timeout(Duration::from_millis(100), &mut opening).await.is_err());
    world.revoked.store(0, std::sync::atomic::Ordering::SeqCst);
    assert!(payload(opening.await.unwrap()).await.starts_with(b"0{"));
}

#[tokio::test]
async fn what_is_kept_for_a_poll_that_is_sent_again_is_bounded_with_all_that_waits() {
    let world = World::with(bus(), &["--max-outbox-bytes", "600000"], 1).await;
    let [idle, polling, other] = [(); 3].map(|()| world.client().session);
    for session in [&idle, &polling] {
        session.outbox.push(Frame::engine(&"x".repeat(250_000)));
        poll(session.clone(), Some("a")).await.unwrap();
    }
    // This one has the answer: it asks for the next.
    let mut next = Box::pin(poll(polling.clone(), Some("b")));
    assert!(timeout(Duration::from_millis(10), &mut next).await.is_err());
    other.outbox.push(Frame::engine(&"x".repeat(200_000)));
    tokio::task::yield_now().await;
    assert_eq!([&idle, &polling, &other].map(|session| session.outbox.closing()), [None; 3]);
    other.outbox.push(Frame::engine(&"x".repeat(200_000)));
    eventually(|| other.outbox.closing() == Some(Close::Now)).await;
    assert_eq!((idle.outbox.closing(), idle.outbox.unasked() > 250_000), (None, true));
    idle.give_up();
    assert_eq!((idle.outbox.closing(), idle.outbox.unasked()), (Some(Close::Now), 0));
}

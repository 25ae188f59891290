use http_body_util::BodyExt;

use super::*;
use crate::realtime::testing::{AWAY, World};
use crate::testing::bus;

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

//! Two gateways on one bus.

use super::*;
use crate::testing::{bus, eventually};

const ROOM: Uuid = Uuid::from_u128(1);
const ADA: Uuid = Uuid::from_u128(7);

fn ada(on: bool) -> Typed {
    Typed { room: ROOM, user: ADA, username: if on { "ada".into() } else { String::new() }, on }
}

/// Two gateways of which the second receives the first.
async fn two() -> (Arc<Typing>, Arc<Typing>, broadcast::Receiver<Typed>) {
    let bus = bus();
    let (one, two) = (Typing::start(&bus), Typing::start(&bus));
    let mut received = two.subscribe();
    eventually(|| {
        one.tell(ada(false));
        received.try_recv().is_ok()
    })
    .await;
    let last = Typed { user: Uuid::nil(), ..ada(false) };
    one.tell(last.clone());
    while received.recv().await.unwrap() != last {}
    (one, two, received)
}

#[tokio::test]
async fn gateways_hear_each_other() {
    let (one, _two, mut received) = two().await;
    let mut own = one.subscribe();
    one.begin(ada(true), 1);
    one.begin(ada(true), 1);
    one.left(ADA, 1);
    for expected in [ada(true), ada(false)] {
        assert_eq!(own.recv().await.unwrap(), expected);
        assert_eq!(received.recv().await.unwrap(), expected);
    }
    assert!(own.try_recv().is_err(), "a gateway does not hear its own notices twice");
}

#[tokio::test]
async fn a_post_at_another_gateway_ends_it() {
    let (one, two, mut received) = two().await;
    one.begin(ada(true), 1);
    let typed = received.recv().await.unwrap();
    assert!(two.admit(&typed, 3) == Some("ada".into()));
    two.posted(ROOM, ADA);
    assert_eq!(received.recv().await.unwrap(), ada(false));
    assert!(two.admit(&ada(false), 3) == Some("ada".into()));
    two.posted(ROOM, ADA);
    assert!(received.try_recv().is_err());
}

#[test]
fn implausible_notices_are_dropped() {
    let notice = v1::Typing {
        origin: "other".into(),
        room_id: ROOM.as_bytes().to_vec(),
        user_id: ADA.as_bytes().to_vec(),
        username: "ada".into(),
        on: true,
    };
    assert_eq!(plausible(notice.clone()), Some(ada(true)));
    assert_eq!(plausible(v1::Typing { room_id: vec![1], ..notice.clone() }), None);
    assert_eq!(plausible(v1::Typing { username: "a".repeat(129), ..notice }), None);
}

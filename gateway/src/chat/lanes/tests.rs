use super::*;
use crate::new_message::NewMessage;

const ROOM: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn event(request: Request) -> Pending {
    Pending { ack: None, request, deadline: Instant::now(), span: Span::default(), size: 10 }
}

fn send() -> Pending {
    event(Request::Send(NewMessage {
        room_id: ROOM.to_string(),
        content: "x".into(),
        client_message_id: None,
        file_ids: None,
        data: None,
    }))
}

fn leave() -> Pending {
    event(Request::Leave)
}

#[test]
fn each_room_has_its_own_order() {
    let mut lanes = Lanes::default();
    for (room, event) in [(ROOM, send()), (OTHER, leave()), (ROOM, send()), (ROOM, leave()), (ROOM, send())] {
        lanes.push(room, event);
    }
    assert_eq!((lanes.take_starting(), lanes.take_starting()), (vec![ROOM, OTHER], vec![]));
    assert!(matches!(lanes.next(ROOM), Next::Bounded(_)));
    assert_eq!(
        [lanes.together(ROOM, 64), lanes.together(ROOM, 1), lanes.together(OTHER, 64)],
        [2, 1, 1],
        "sends go together"
    );
    assert_eq!(lanes.take(ROOM, 2).len(), 2);
    assert_eq!((lanes.next(ROOM), lanes.together(ROOM, 64)), (Next::Free, 1));
    assert_eq!(lanes.take(ROOM, 1).len(), 1);
    assert!(matches!(lanes.next(ROOM), Next::Bounded(_)));
}

#[test]
fn an_empty_lane_ends_with_its_task_and_can_start_again() {
    let mut lanes = Lanes::default();
    lanes.push(ROOM, leave());
    assert_eq!(lanes.take_starting(), [ROOM]);
    assert_eq!(lanes.take(ROOM, 9).len(), 1);
    // The task has not called `next` yet, so it will find this event.
    lanes.push(ROOM, leave());
    assert!(lanes.take_starting().is_empty());
    assert_eq!(lanes.take(ROOM, 1).len(), 1);
    assert_eq!(lanes.next(ROOM), Next::End);
    assert_eq!(lanes.lanes.capacity(), 0);
    lanes.push(ROOM, leave());
    assert_eq!(lanes.take_starting(), [ROOM]);
}

#[test]
fn clear_returns_the_size_of_dropped_events() {
    let mut lanes = Lanes::default();
    lanes.push(ROOM, send());
    lanes.push(OTHER, leave());
    assert_eq!((lanes.clear(), lanes.clear(), lanes.together(ROOM, 9)), (20, 0, 0));
    assert_eq!((lanes.take(ROOM, 9).len(), lanes.next(ROOM)), (0, Next::End));
}

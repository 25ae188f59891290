//! Ordinals, and the read markers of members.

use std::collections::HashMap;

use super::changes::{append_one, appended, change, edit, open_with};
use super::*;

on_both!(
    messages_and_files_are_counted,
    a_marker_moves_forward_and_on_request_back,
    deleted_messages_are_not_unread,
    a_new_member_has_read_what_came_before,
    only_members_have_a_marker,
    a_room_has_receipts_while_it_is_small,
    a_level_holds_until_its_time,
    unread_equals_a_count_of_the_messages,
);

fn room_event(room: Uuid) -> EventData {
    let body = Body { sender_username: "ada".into(), event: "roomUpdated".into(), ..Body::default() };
    EventData { kind: Kind::System, body, ..new_message(room, None, "") }
}

fn mark(room: RoomKey, user: Uuid, seq: u64) -> Mark {
    Mark { room, user, seq, age_ms: 0, back: false }
}

async fn marked(store: &dyn Store, mark: Mark) -> Option<Marked> {
    marked_at(store, mark, i64::MAX / 2).await
}

async fn marked_at(store: &dyn Store, mark: Mark, now_ms: i64) -> Option<Marked> {
    store.marks().mark(vec![mark], 3, now_ms).await.unwrap().remove(0)
}

/// Returns the `seq` and the unread messages of the marker that stands after a mark, and whether it moved.
async fn moved(store: &dyn Store, mark: Mark) -> (u64, u64, bool) {
    let marked = marked(store, mark).await.unwrap();
    (marked.seq, marked.unread, marked.moved)
}

/// Returns the `seq` and the unread messages of a marker.
async fn stands(store: &dyn Store, room: RoomKey, user: Uuid) -> (u64, u64) {
    let all = store.marks().markers(user, None).await.unwrap();
    let of_room = store.marks().markers(user, Some(vec![room])).await.unwrap();
    let [marker] = of_room[..] else { panic!("{of_room:?}") };
    assert!(all.contains(&marker), "{all:?}");
    (marker.seq, marker.unread)
}

async fn messages_and_files_are_counted(fixture: Fixture) {
    let store = fixture.open().await;
    let [first, other] = [Uuid::now_v7(), Uuid::now_v7()];
    let file = EventData { kind: Kind::File, ..new_message(first, None, "") };
    let batch = [
        new_message(first, None, "1"),
        room_event(first),
        file,
        new_message(other, None, "1"),
        new_message(first, None, "3"),
    ];
    let events = append_new(&*store, &batch).await;
    let expected = [Some(1), None, Some(2), Some(1), Some(3)];
    assert_eq!(events.iter().map(|event| event.ordinal).collect::<Vec<_>>(), expected);
    appended(&*store, edit(&events[0], "better")).await;
    let next = append_new(&*store, &[new_message(first, Some("again"), "4")]).await.remove(0);
    assert_eq!((next.seq, next.ordinal), (6, Some(4)));
    let repeat = append_one(&*store, (*next.data).clone()).await;
    assert!(matches!(&repeat, Outcome::Repeated(event) if event.ordinal == Some(4)), "{repeat:?}");

    let page = list(&*store, (events[0].data.partition, first), Window::Latest, ALL).await;
    assert_eq!(page.messages, 4);
    assert_eq!(
        page.events.iter().map(|event| event.ordinal).collect::<Vec<_>>(),
        [Some(1), None, Some(2), Some(3), Some(4)]
    );
    let log = store.read_log(events[0].data.partition, 0, ALL).await.unwrap();
    let change = log.events.iter().find(|event| event.data.kind == Kind::Change).unwrap();
    assert_eq!((change.ordinal, change.message.as_ref().unwrap().ordinal), (None, Some(1)));
    let heads = store.room_heads(vec![(events[0].data.partition, first)]).await.unwrap();
    assert_eq!((heads.heads[0].seq, heads.heads[0].messages), (6, 4));
}

async fn a_marker_moves_forward_and_on_request_back(fixture: Fixture) {
    let store = fixture.open().await;
    let user = Uuid::now_v7();
    let room = open_with(&*store, false, &[(user, Role::Member)]).await;
    let messages: Vec<_> = (0..4).map(|_| new_message(room.1, None, "x")).collect();
    let events = append_new(&*store, &messages).await;
    appended(&*store, edit(&events[3], "y")).await;
    append_new(&*store, &[room_event(room.1)]).await;
    assert_eq!(stands(&*store, room, user).await, (0, 4));
    let marked = marked(&*store, mark(room, user, 2)).await.unwrap();
    assert_eq!((marked.seq, marked.unread, marked.moved, marked.passed), (2, 2, true, 2));
    // A repeat, and a mark that another one has overtaken.
    assert_eq!(moved(&*store, mark(room, user, 2)).await, (2, 2, false));
    assert_eq!(moved(&*store, mark(room, user, 1)).await, (2, 2, false));
    // The numbers of a change and of a room event belong to no message.
    assert_eq!(moved(&*store, mark(room, user, 5)).await, (5, 0, true));
    assert_eq!(moved(&*store, mark(room, user, u64::MAX)).await, (6, 0, true));
    assert_eq!(moved(&*store, Mark { back: true, ..mark(room, user, 1) }).await, (1, 3, true));
    assert_eq!(stands(&*store, room, user).await, (1, 3));
    // Another device has sent this mark before the user marked messages as unread.
    assert_eq!(moved(&*store, Mark { age_ms: 60_000, ..mark(room, user, 4) }).await, (1, 3, false));
    let later = marked_at(&*store, Mark { back: true, ..mark(room, user, 0) }, 5_000).await.unwrap();
    assert_eq!((later.seq, later.unread), (0, 4));
}

async fn deleted_messages_are_not_unread(fixture: Fixture) {
    let store = fixture.open().await;
    let user = Uuid::now_v7();
    let room = open_with(&*store, false, &[(user, Role::Member)]).await;
    let messages: Vec<_> = (0..4).map(|_| new_message(room.1, None, "x")).collect();
    let events = append_new(&*store, &messages).await;
    moved(&*store, mark(room, user, 1)).await;
    for (deleted, unread) in [(0, 3), (2, 2), (3, 1)] {
        let event = &events[deleted];
        appended(&*store, edit(event, "y")).await;
        appended(&*store, change(event, event.data.sender, Op::Delete)).await;
        assert_eq!(stands(&*store, room, user).await, (1, unread));
    }
    assert_eq!(moved(&*store, mark(room, user, 2)).await, (2, 0, true));
    assert_eq!(moved(&*store, Mark { back: true, ..mark(room, user, 0) }).await, (0, 1, true));
}

async fn a_new_member_has_read_what_came_before(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, user] = [Uuid::now_v7(), Uuid::now_v7()];
    let room = open_with(&*store, false, &[(owner, Role::Owner)]).await;
    let access = |members, removed| AccessChange { members, removed, ..AccessChange::default() };
    let event = |access| {
        let body = Body { event: "x".into(), data: "{}".into(), access: Some(access), ..Body::default() };
        EventData { kind: Kind::System, body, ..new_message(room.1, None, "") }
    };
    let joins = |role| event(access(vec![Member { user, role }], Vec::new()));
    append_new(&*store, &[new_message(room.1, None, "1"), joins(Role::Member)]).await;
    assert_eq!(stands(&*store, room, user).await, (2, 0));
    append_new(&*store, &[new_message(room.1, None, "2"), joins(Role::Admin)]).await;
    assert_eq!(stands(&*store, room, user).await, (2, 1));
    append_new(&*store, &[event(access(Vec::new(), vec![user]))]).await;
    assert_eq!(store.marks().markers(user, None).await.unwrap(), []);
    append_new(&*store, &[joins(Role::Member), new_message(room.1, None, "3")]).await;
    assert_eq!(stands(&*store, room, user).await, (6, 1));
    assert_eq!(stands(&*store, room, owner).await, (0, 3));
}

async fn only_members_have_a_marker(fixture: Fixture) {
    let store = fixture.open().await;
    let [user, stranger] = [Uuid::now_v7(), Uuid::now_v7()];
    let room = open_with(&*store, false, &[(user, Role::Member)]).await;
    append_new(&*store, &[new_message(room.1, None, "x")]).await;
    let unknown = (room.0, Uuid::now_v7());
    let marks = vec![mark(room, stranger, 1), mark(room, user, 1), mark(unknown, user, 1), mark(room, user, 0)];
    let outcomes = store.marks().mark(marks, 3, 1).await.unwrap();
    let moved: Vec<_> = outcomes.iter().map(|outcome| outcome.map(|marked| marked.moved)).collect();
    assert_eq!(moved, [None, Some(true), None, Some(false)]);
    assert_eq!(store.marks().markers(stranger, Some(vec![room])).await.unwrap(), []);
    let closing = EventData { closes_room: true, ..room_event(room.1) };
    append_new(&*store, &[closing]).await;
    assert_eq!(store.marks().markers(user, None).await.unwrap(), []);
    assert_eq!(marked(&*store, mark(room, user, 1)).await, None);
}

async fn a_room_has_receipts_while_it_is_small(fixture: Fixture) {
    let store = fixture.open().await;
    let users: Vec<_> = (0..4).map(|_| Uuid::now_v7()).collect();
    let members: Vec<_> = users.iter().map(|user| (*user, Role::Member)).collect();
    let large = open_with(&*store, false, &members).await;
    let small = open_with(&*store, true, &members[..3]).await;
    let mut message = new_message(small.1, None, "x");
    message.sender = users[0];
    append_new(&*store, &[new_message(large.1, None, "x"), message]).await;
    let marks = vec![mark(large, users[0], 1), mark(small, users[0], 1), mark(small, users[1], 0)];
    let outcomes = store.marks().mark(marks, 3, 7).await.unwrap();
    let receipts: Vec<_> = outcomes.iter().map(|outcome| outcome.unwrap().has_receipts).collect();
    assert_eq!(receipts, [false, true, true]);
    let read = async |room, most, reader| store.marks().receipts(room, most, vec![reader].into()).await.unwrap();
    let (receipts, access) = read(small, 10, users[1]).await;
    assert!(access.exists && access.private);
    let of: HashMap<_, _> = receipts.iter().map(|receipt| (receipt.user, receipt.seq)).collect();
    assert_eq!(of, HashMap::from([(users[0], 1), (users[1], 0), (users[2], 0)]));
    assert!(receipts.iter().all(|receipt| receipt.at_ms.is_some() == (receipt.user == users[0])));
    assert_eq!(read(small, 10, users[3]).await.0, []);
    assert_eq!(read(large, 3, users[3]).await.0.len(), 3);
    assert!(!read((small.0, Uuid::now_v7()), 3, users[0]).await.1.exists);
}

async fn a_level_holds_until_its_time(fixture: Fixture) {
    let store = fixture.open().await;
    let [user, stranger] = [Uuid::now_v7(), Uuid::now_v7()];
    let room = open_with(&*store, false, &[(user, Role::Member)]).await;
    append_new(&*store, &[room_event(room.1)]).await;
    let level = async || store.marks().markers(user, None).await.unwrap()[0].notify;
    assert_eq!(level().await, Notify::default());
    let notify = Notify { level: Level::Mentions, until_ms: Some(9) };
    assert!(store.marks().set_notify(room, user, notify).await.unwrap());
    assert_eq!(level().await, notify);
    assert!(!store.marks().set_notify(room, stranger, notify).await.unwrap());
    assert!(store.marks().set_notify(room, user, Notify::default()).await.unwrap());
    assert_eq!(level().await, Notify::default());
    let marker = store.marks().markers(user, None).await.unwrap()[0];
    assert_eq!((marker.head, marker.last_message_at_ms), (1, None));
    let message = append_new(&*store, &[new_message(room.1, None, "x"), room_event(room.1)]).await.remove(0);
    let marker = store.marks().markers(user, None).await.unwrap()[0];
    assert_eq!((marker.head, marker.last_message_at_ms), (3, Some(message.created_at_ms)));
}

async fn unread_equals_a_count_of_the_messages(fixture: Fixture) {
    let store = fixture.open().await;
    let users: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
    let members: Vec<_> = users.iter().map(|user| (*user, Role::Member)).collect();
    let room = open_with(&*store, false, &members).await;
    let mut markers = [0_u64; 3];
    let mut messages: Vec<(Event, bool)> = Vec::new();
    let (mut head, mut random) = (0, 0x2545_f491_4f6c_dd1d_u64);
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for step in 0..150 {
        match next(6) {
            0 | 1 => {
                messages.push((append_new(&*store, &[new_message(room.1, None, "x")]).await.remove(0), false));
                head += 1;
            }
            2 => {
                append_new(&*store, &[room_event(room.1)]).await;
                head += 1;
            }
            3 if !messages.is_empty() => {
                let chosen = next(messages.len() as u64) as usize;
                let (event, deleted) = &mut messages[chosen];
                let sender = event.data.sender;
                let change = match next(2) {
                    0 => edit(event, &format!("edited at {head}")),
                    _ => change(event, sender, Op::Delete),
                };
                let deletes = change.change.is_some_and(|change| change.op == Op::Delete);
                if matches!(append_opened(&*store, &[change]).await.remove(0), Ok(Outcome::Appended(_))) {
                    *deleted |= deletes;
                    head += 1;
                }
            }
            _ => {
                let (chosen, seq, back) = (next(3) as usize, next(head + 3), next(4) == 0);
                let wish = Mark { back, ..mark(room, users[chosen], seq) };
                marked_at(&*store, wish, step).await.unwrap();
                let seq = seq.min(head);
                markers[chosen] = if back { seq } else { seq.max(markers[chosen]) };
            }
        }
        for (user, marker) in users.iter().zip(markers) {
            let unread = messages.iter().filter(|(event, deleted)| event.seq > marker && !deleted).count() as u64;
            assert_eq!(stands(&*store, room, *user).await, (marker, unread));
        }
    }
}

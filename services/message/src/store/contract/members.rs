//! Private rooms and their members: a membership begins and ends at a definite `seq`.

use std::collections::{HashMap, HashSet};

use futures::future::join_all;

use super::*;

on_both!(
    only_members_post_and_read,
    changes_hold_from_their_event_on,
    a_late_opening_brings_no_member_back,
    a_restored_log_receives_its_rooms_again,
    an_unopened_room_accepts_nothing,
    nothing_follows_a_removal,
);

fn key(room: Uuid) -> RoomKey {
    (partition::of_room(room, PARTITIONS), room)
}

fn by(sender: Uuid, data: EventData) -> EventData {
    EventData { sender, ..data }
}

fn change(room: Uuid, event: &str, access: AccessChange) -> EventData {
    let body = Body { event: event.into(), data: "{}".into(), access: Some(access), ..Body::default() };
    EventData { kind: Kind::System, body, ..new_message(room, None, "") }
}

fn joins(room: Uuid, user: Uuid) -> EventData {
    let members = vec![Member { user, role: Role::Member }];
    change(room, "memberJoined", AccessChange { members, private: true, ..AccessChange::default() })
}

fn leaves(room: Uuid, user: Uuid) -> EventData {
    change(room, "memberLeft", AccessChange { removed: vec![user], private: true, ..AccessChange::default() })
}

fn becomes(room: Uuid, private: bool) -> EventData {
    change(room, "roomUpdated", AccessChange { private, changes_visibility: true, ..AccessChange::default() })
}

async fn private_room(store: &dyn Store, owner: Uuid) -> Uuid {
    let room = Uuid::now_v7();
    store.open_room(key(room), true, vec![Member { user: owner, role: Role::Owner }]).await.unwrap();
    room
}

/// Returns the contents that these readers see, and those of the readers who are members.
async fn seen(store: &dyn Store, room: Uuid, readers: &[Uuid]) -> (usize, Vec<Uuid>) {
    let (page, access) = store.list(key(room), Window::After(0), ALL, readers.to_vec().into()).await.unwrap();
    (page.events.len(), access.readers)
}

async fn only_members_post_and_read(fixture: Fixture) {
    let store = fixture.open().await;
    let (owner, stranger) = (Uuid::now_v7(), Uuid::now_v7());
    let room = private_room(&*store, owner).await;
    let outcomes = append_opened(
        &*store,
        &[
            by(owner, new_message(room, None, "mine")),
            by(stranger, new_message(room, None, "not mine")),
            by(stranger, EventData { kind: Kind::File, ..new_message(room, None, "") }),
        ],
    )
    .await;
    assert!(matches!(&outcomes[0], Ok(Outcome::Appended(event)) if event.seq == 1));
    assert_eq!(outcomes[1].as_ref().unwrap(), &Outcome::Hidden);
    assert_eq!(outcomes[2].as_ref().unwrap(), &Outcome::Hidden);
    assert_eq!(seen(&*store, room, &[owner]).await, (1, vec![owner]));
    assert_eq!(seen(&*store, room, &[stranger, owner]).await, (1, vec![owner]));
    assert_eq!(seen(&*store, room, &[stranger]).await, (0, vec![]));
    assert_eq!(seen(&*store, room, &[]).await, (0, vec![]));
    for window in [Window::Latest, Window::Before(9)] {
        assert!(store.list(key(room), window, ALL, vec![stranger].into()).await.unwrap().0.events.is_empty());
        let (page, access) = store.list(key(room), window, ALL, Readers::Moderator).await.unwrap();
        assert_eq!((page.events.len(), access.private, access.readers), (1, true, vec![]));
    }
}

async fn changes_hold_from_their_event_on(fixture: Fixture) {
    let store = fixture.open().await;
    let (owner, guest) = (Uuid::now_v7(), Uuid::now_v7());
    let room = private_room(&*store, owner).await;
    let neighbour = private_room(&*store, guest).await;
    let guests = |content: &str| by(guest, new_message(room, None, content));
    let (early, removal) = (guests("early"), leaves(room, guest));
    // All in one call of one caller: each event is judged by the events before it.
    let batch = [
        guests("too early"),
        joins(room, guest),
        early.clone(),
        removal.clone(),
        guests("too late"),
        by(guest, new_message(neighbour, None, "elsewhere")),
        becomes(room, false),
        guests("public"),
        becomes(room, true),
        guests("private again"),
    ];
    let outcomes = append_opened(&*store, &batch).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let seqs = outcomes.iter().map(|outcome| match outcome {
        Outcome::Appended(event) => event.seq,
        Outcome::Repeated(event) => panic!("repeated {event:?}"),
        _ => 0,
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 4, 5, 6, 0]);
    assert_eq!(seen(&*store, room, &[guest, owner]).await, (6, vec![owner]));
    // The log returns a change with its event.
    let page = store.read_log(key(room).0, 0, ALL).await.unwrap();
    let stored = page.events.iter().find(|event| event.data.id == removal.id).unwrap();
    assert_eq!(stored.data.body.access, removal.body.access);
    // A repeat changes nothing, even if it is a repeat of a change.
    let again = [batch[1].clone(), early];
    let outcomes = append_opened(&*store, &again).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Repeated(_)))), "{outcomes:?}");
    assert_eq!(append_opened(&*store, &[guests("still out")]).await[0].as_ref().unwrap(), &Outcome::Hidden);
}

async fn a_late_opening_brings_no_member_back(fixture: Fixture) {
    let store = fixture.open().await;
    let (owner, guest) = (Uuid::now_v7(), Uuid::now_v7());
    let room = Uuid::now_v7();
    let members = [(owner, Role::Owner), (guest, Role::Member)].map(|(user, role)| Member { user, role });
    store.open_room(key(room), true, members.to_vec()).await.unwrap();
    append_opened(&*store, &[leaves(room, guest)]).await.remove(0).unwrap();
    store.open_room(key(room), false, members.to_vec()).await.unwrap();
    assert_eq!(seen(&*store, room, &[owner, guest]).await, (1, vec![owner]));
}

async fn a_restored_log_receives_its_rooms_again(fixture: Fixture) {
    let store = fixture.open().await;
    let [owner, removed, added, more] = [(); 4].map(|()| Uuid::now_v7());
    let room = private_room(&*store, owner).await;
    append_opened(&*store, &[joins(room, removed)]).await.remove(0).unwrap();
    let before = store.heads().await.unwrap().epoch;
    let again = |epoch, members: &[Uuid], partial| Reopening {
        epoch,
        private: true,
        members: members.iter().map(|user| Member { user: *user, role: Role::Member }).collect(),
        partial,
    };
    let everyone = [owner, removed, added, more];
    let members = async || seen(&*store, room, &everyone).await.1.into_iter().collect::<HashSet<_>>();
    // The removal of one member and the addition of another are lost.
    let epoch = store.renew_epoch().await.unwrap();
    store.reopen_room(key(room), again(before, &[owner, added], false)).await.unwrap();
    assert_eq!(members().await, [owner, removed].into(), "of an earlier epoch");
    store.reopen_room(key(room), again(epoch, &[owner, added], false)).await.unwrap();
    assert_eq!(members().await, [owner, added].into());
    // From now on, events count; a late repeat brings no member back.
    append_opened(&*store, &[leaves(room, added)]).await.remove(0).unwrap();
    store.reopen_room(key(room), again(epoch, &[owner, added], false)).await.unwrap();
    assert_eq!(members().await, [owner].into());

    // Of a room with more members than one call, the log keeps those that it has.
    let epoch = store.renew_epoch().await.unwrap();
    store.reopen_room(key(room), again(epoch, &[more], true)).await.unwrap();
    assert_eq!(members().await, [owner, more].into());

    // A room that the log does not have any more.
    let lost = Uuid::now_v7();
    store.reopen_room(key(lost), again(epoch, &[owner], false)).await.unwrap();
    assert_eq!(seen(&*store, lost, &everyone).await, (0, vec![owner]));
    let posted = append_opened(&*store, &[by(owner, new_message(lost, None, "hello"))]).await.remove(0).unwrap();
    assert!(matches!(posted, Outcome::Appended(_)), "{posted:?}");
}

async fn an_unopened_room_accepts_nothing(fixture: Fixture) {
    let store = fixture.open().await;
    let room = Uuid::now_v7();
    let (page, access) = store.list(key(room), Window::Latest, ALL, vec![].into()).await.unwrap();
    assert_eq!((page.events.len(), access), (0, RoomAccess::default()));
    let closing = EventData { kind: Kind::System, closes_room: true, ..new_message(room, None, "") };
    for data in [new_message(room, None, "x"), closing, joins(room, Uuid::now_v7())] {
        assert_eq!(append_opened(&*store, &[data]).await[0].as_ref().unwrap(), &Outcome::Hidden);
    }
    store.open_room(key(room), false, vec![]).await.unwrap();
    let access = store.list(key(room), Window::Latest, ALL, vec![].into()).await.unwrap().1;
    assert_eq!(access, RoomAccess { exists: true, ..RoomAccess::default() });
    append_new(&*store, &[new_message(room, None, "x")]).await;
}

async fn nothing_follows_a_removal(fixture: Fixture) {
    let replicas = fixture.replicas().await;
    let owner = Uuid::now_v7();
    let room = private_room(&*replicas[0], owner).await;
    let guests: Vec<_> = (0..4).map(|_| Uuid::now_v7()).collect();
    let all = guests.iter().map(|guest| joins(room, *guest)).collect::<Vec<_>>();
    append_opened(&*replicas[0], &all).await.into_iter().for_each(|outcome| _ = outcome.unwrap());
    // Guests post without a pause, over both replicas, while they are removed one after another.
    let posts = guests.iter().enumerate().map(|(n, guest)| {
        let (store, guest) = (replicas[n % 2].clone(), *guest);
        tokio::spawn(async move {
            loop {
                let batch = [0; 3].map(|_| by(guest, new_message(room, None, "x")));
                let outcomes = append_opened(&*store, &batch).await;
                if outcomes.iter().any(|outcome| *outcome.as_ref().unwrap() == Outcome::Hidden) {
                    return;
                }
            }
        })
    });
    let posts = posts.collect::<Vec<_>>();
    for (n, guest) in guests.iter().enumerate() {
        let outcome = append_opened(&*replicas[1 - n % 2], &[leaves(room, *guest)]).await.remove(0).unwrap();
        assert!(matches!(outcome, Outcome::Appended(_)));
    }
    let ended = tokio::time::timeout(Duration::from_secs(30), join_all(posts)).await;
    ended.expect("every guest is refused after the removal").into_iter().for_each(|post| post.unwrap());
    let events = store_events(&*replicas[0], room, owner).await;
    let mut removed = HashMap::new();
    for event in events {
        if let Some(change) = &event.data.body.access {
            removed.extend(change.removed.iter().map(|user| (*user, event.seq)));
        }
        assert!(!removed.contains_key(&event.data.sender), "a post at {} after the removal", event.seq);
    }
    assert_eq!(removed.len(), guests.len());
}

async fn store_events(store: &dyn Store, room: Uuid, reader: Uuid) -> Vec<Event> {
    store.list(key(room), Window::After(0), ALL, vec![reader].into()).await.unwrap().0.events
}

//! A restored log receives the members of a room in several calls.

use std::collections::HashSet;

use super::*;

on_both!(
    all_members_arrive_in_several_calls,
    calls_do_not_undo_later_events,
    calls_after_the_last_one_are_without_effect,
    an_interrupted_sequence_begins_again,
);

/// The most members in one call.
const PAGE: usize = 1000;

fn key(room: Uuid) -> RoomKey {
    (partition::of_room(room, PARTITIONS), room)
}

fn users(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

fn members(users: &[Uuid]) -> Vec<Member> {
    users.iter().map(|user| Member { user: *user, role: Role::Member }).collect()
}

/// Gives the log a page of the members of a private room.
async fn page(store: &dyn Store, room: Uuid, epoch: Uuid, users: &[Uuid], partial: bool) {
    let again = Reopening { epoch, private: true, members: members(users), partial };
    store.reopen_room(key(room), again).await.unwrap();
}

/// Returns those of these users who are members.
async fn present(store: &dyn Store, room: Uuid, users: &[Uuid]) -> HashSet<Uuid> {
    let none = Limit { events: 0, bytes: 1 };
    let (_, access) = store.list(key(room), Window::Latest, none, users.to_vec().into()).await.unwrap();
    assert!(access.private);
    access.readers.into_iter().collect()
}

/// Appends an event that adds and removes members.
async fn change(store: &dyn Store, room: Uuid, added: &[Uuid], removed: &[Uuid]) {
    let access =
        AccessChange { members: members(added), removed: removed.to_vec(), private: true, ..Default::default() };
    let body = Body { event: "memberJoined".into(), data: "{}".into(), access: Some(access), ..Body::default() };
    let event = EventData { kind: Kind::System, body, ..new_message(room, None, "") };
    let outcome = append_opened(store, &[event]).await.remove(0).unwrap();
    assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
}

async fn private_room(store: &dyn Store, users: &[Uuid]) -> Uuid {
    let room = Uuid::now_v7();
    store.open_room(key(room), true, members(users)).await.unwrap();
    room
}

async fn all_members_arrive_in_several_calls(fixture: Fixture) {
    let store = fixture.open().await;
    let (kept, removed) = (users(2 * PAGE + 300), users(2));
    // The log was restored to a state with few of the members, and with some that have left since then.
    let room = private_room(&*store, &[&kept[2290..], &removed].concat()).await;
    let all = [&*kept, &removed].concat();
    let epoch = store.renew_epoch().await.unwrap();
    page(&*store, room, epoch, &kept[..PAGE], true).await;
    // While calls follow, the log keeps the members that it has.
    assert_eq!(present(&*store, room, &all).await.len(), PAGE + 10 + removed.len());
    page(&*store, room, epoch, &kept[PAGE..2 * PAGE], true).await;
    page(&*store, room, epoch, &kept[2 * PAGE..], false).await;
    assert_eq!(present(&*store, room, &all).await, kept.iter().copied().collect());

    // The same in the next epoch, in which the log does not have the room any more.
    let lost = Uuid::now_v7();
    let epoch = store.renew_epoch().await.unwrap();
    page(&*store, lost, epoch, &kept[..PAGE], true).await;
    page(&*store, lost, epoch, &kept[PAGE..PAGE + 1], false).await;
    assert_eq!(present(&*store, lost, &all).await.len(), PAGE + 1);
    page(&*store, room, epoch, &kept[..2], true).await;
    page(&*store, room, epoch, &kept[2..3], false).await;
    assert_eq!(present(&*store, room, &all).await, kept[..3].iter().copied().collect());
}

async fn calls_do_not_undo_later_events(fixture: Fixture) {
    let store = fixture.open().await;
    let all = users(6);
    let [first, demoted, removed, returned, added, stale] = all[..] else { unreachable!() };
    let room = private_room(&*store, &[first, removed, stale]).await;
    change(&*store, room, &[], &[stale]).await;
    change(&*store, room, &[stale], &[]).await;
    let epoch = store.renew_epoch().await.unwrap();
    page(&*store, room, epoch, &[first, demoted], true).await;
    change(&*store, room, &[], &[demoted, removed]).await;
    change(&*store, room, &[added], &[returned]).await;
    append_opened(&*store, &[EventData { sender: first, ..new_message(room, None, "x") }]).await.remove(0).unwrap();
    change(&*store, room, &[returned], &[]).await;
    // Both pages were read before the events.
    page(&*store, room, epoch, &[demoted, removed], true).await;
    assert_eq!(present(&*store, room, &all).await, [first, returned, added, stale].into());
    page(&*store, room, epoch, &[removed], false).await;
    assert_eq!(present(&*store, room, &all).await, [first, returned, added].into());
}

async fn calls_after_the_last_one_are_without_effect(fixture: Fixture) {
    let store = fixture.open().await;
    let all = users(3);
    let room = private_room(&*store, &all[..1]).await;
    let before = store.heads().await.unwrap().epoch;
    let epoch = store.renew_epoch().await.unwrap();
    page(&*store, room, before, &all[2..], true).await;
    assert_eq!(present(&*store, room, &all).await, [all[0]].into(), "of an earlier epoch");
    page(&*store, room, epoch, &all[..1], true).await;
    page(&*store, room, epoch, &all[1..2], false).await;
    for partial in [true, false] {
        page(&*store, room, epoch, &all[2..], partial).await;
        assert_eq!(present(&*store, room, &all).await, all[..2].iter().copied().collect());
    }
}

async fn an_interrupted_sequence_begins_again(fixture: Fixture) {
    let store = fixture.open().await;
    let all = users(5);
    let room = private_room(&*store, &all[4..]).await;
    let epoch = store.renew_epoch().await.unwrap();
    page(&*store, room, epoch, &all[..2], true).await;
    // Another replica sends all members, in other pages, between the calls of the first one.
    page(&*store, room, epoch, &all[..1], true).await;
    page(&*store, room, epoch, &all[1..3], true).await;
    page(&*store, room, epoch, &all[2..4], true).await;
    page(&*store, room, epoch, &all[3..4], false).await;
    assert_eq!(present(&*store, room, &all).await, all[..4].iter().copied().collect());
}

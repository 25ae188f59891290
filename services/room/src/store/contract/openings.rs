//! The store knows which rooms the log has not opened.

use super::members::{member, set, with};
use super::*;

contract![
    new_room_is_unopened,
    opening_shows_the_current_room,
    opening_has_at_most_1000_members,
    further_members_are_read_in_pages,
    opening_of_a_deleted_room_stays,
    unopened_rooms_are_paged,
    all_rooms_are_opened_again,
];

async fn new_room_is_unopened(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let members = vec![(tea.creator.id, Role::Owner)];
    let opening = Opening { private: Some(false), members, more: false, epoch: None };
    assert_eq!(store.opening(tea.id).await.unwrap(), Some(opening));
    let (tea, event) = change(&tea, "Green tea");
    assert!(store.update(tea.clone(), event).await.unwrap());
    assert!(first(&store, tea.id).await.unwrap().unopened);
    assert!(store.oldest_of_rooms(Uuid::nil(), 10, 1).await.unwrap()[0].unopened);

    for _ in 0..2 {
        store.remove_opening(tea.id, None).await.unwrap();
        assert_eq!(store.opening(tea.id).await.unwrap(), None);
        assert!(store.unopened(Uuid::nil(), 10).await.unwrap().is_empty());
    }
    assert!(!first(&store, tea.id).await.unwrap().unopened);
    assert!(!store.oldest_of_rooms(Uuid::nil(), 10, 1).await.unwrap()[0].unopened);
    assert_eq!(store.opening(Uuid::now_v7()).await.unwrap(), None);
}

async fn opening_shows_the_current_room(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let (tea, event) = change(&tea, "Tea");
    assert!(store.update(Room { private: true, ..tea.clone() }, event).await.unwrap());
    let (bob, cleo) = (user(), user());
    let set = vec![
        Member { user: tea.creator.clone(), role: Role::Member, joined_at_ms: 1000 },
        Member { user: bob.clone(), role: Role::Owner, joined_at_ms: 2000 },
        Member { user: cleo.clone(), role: Role::Admin, joined_at_ms: 3000 },
    ];
    let (_, event) = change(&tea, "Tea");
    assert!(store.change_members(MemberChange { set, removed: None, joins: None, event }).await.unwrap());
    let members = vec![(bob.id, Role::Owner), (cleo.id, Role::Admin), (tea.creator.id, Role::Member)];
    let opening = Opening { private: Some(true), members, more: false, epoch: None };
    assert_eq!(store.opening(tea.id).await.unwrap(), Some(opening));
}

async fn opening_has_at_most_1000_members(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let mut tea = with(&store, &tea, (0..999).map(|_| member(Role::Member, 500)).collect()).await;
    for more in [false, true] {
        let opening = store.opening(tea.id).await.unwrap().unwrap();
        assert_eq!((opening.members.len(), opening.members[0]), (1000, (tea.creator.id, Role::Owner)));
        assert_eq!(opening.more, more);
        tea = with(&store, &tea, vec![member(Role::Member, 500)]).await;
    }
}

/// Returns the members on the pages from one id on.
async fn pages_after(store: &Arc<dyn Store>, room: Uuid, mut after: Uuid, limit: u32) -> Vec<Vec<(Uuid, Role)>> {
    let mut pages = Vec::new();
    loop {
        let page = store.members_by_id(room, after, limit).await.unwrap();
        let Some((last, _)) = page.last() else { return pages };
        after = *last;
        pages.push(page);
    }
}

async fn further_members_are_read_in_pages(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let coffee = made(&store, "Coffee").await;
    let others = (0..2299).map(|_| member(Role::Member, 500)).collect::<Vec<_>>();
    let tea = with(&store, &tea, others.clone()).await;
    with(&store, &coffee, others[..3].to_vec()).await;
    let pages = pages_after(&store, tea.id, Uuid::nil(), 1000).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 300]);
    let read = pages.concat();
    assert!(read.is_sorted_by(|(a, _), (b, _)| a < b), "each once");
    assert!(read.contains(&(tea.creator.id, Role::Owner)));
    assert_eq!(read.len(), others.len() + 1);

    // A member that becomes an admin between two pages stays in its place, and a removed one is on no later page.
    let (after, promoted, removed) = (read[1].0, read[2].0, read[3].0);
    let admin = others.iter().find(|other| other.user.id == promoted).unwrap();
    let promotion = set(&tea, vec![Member { role: Role::Admin, ..admin.clone() }], None);
    assert!(store.change_members(MemberChange { removed: Some(removed), ..promotion }).await.unwrap());
    let rest = pages_after(&store, tea.id, after, 1000).await.concat();
    assert_eq!(rest[..2], [(promoted, Role::Admin), read[4]]);
    assert_eq!(rest.len(), read.len() - 3);
}

async fn opening_of_a_deleted_room_stays(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    assert!(store.delete(deletion(&tea)).await.unwrap());
    let opening = Opening { private: None, members: Vec::new(), more: false, epoch: None };
    assert_eq!(store.opening(tea.id).await.unwrap(), Some(opening));
    assert!(first(&store, tea.id).await.unwrap().unopened);
}

async fn unopened_rooms_are_paged(store: Arc<dyn Store>) {
    let mut rooms = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        rooms.push(made(&store, name).await.id);
    }
    rooms.sort();
    assert_eq!(store.unopened(Uuid::nil(), 2).await.unwrap(), rooms[..2]);
    assert_eq!(store.unopened(rooms[1], 10).await.unwrap(), rooms[2..]);
    assert!(store.unopened(rooms[4], 10).await.unwrap().is_empty());
}

async fn all_rooms_are_opened_again(store: Arc<dyn Store>) {
    let [older, newer] = [(); 2].map(|()| Uuid::now_v7());
    assert_eq!(store.log_epoch().await.unwrap(), None);
    for (epoch, recorded) in [(older, older), (newer, newer), (older, newer)] {
        store.record_epoch(epoch).await.unwrap();
        assert_eq!(store.log_epoch().await.unwrap(), Some(recorded));
    }

    let mut rooms = vec![made(&store, "Tea").await, made(&store, "Coffee").await, made(&store, "Water").await];
    rooms.sort_by_key(|room| room.id);
    store.remove_opening(rooms[0].id, None).await.unwrap();
    assert!(store.delete(deletion(&rooms[1])).await.unwrap());
    assert_eq!(store.reopen(newer, Uuid::nil(), 2).await.unwrap(), Some(rooms[1].id));
    assert_eq!(store.reopen(newer, rooms[1].id, 2).await.unwrap(), Some(rooms[2].id));
    assert_eq!(store.reopen(newer, rooms[2].id, 2).await.unwrap(), None);
    for room in &rooms {
        assert_eq!(store.opening(room.id).await.unwrap().unwrap().epoch, Some(newer));
        // What another replica did for an earlier epoch is no opening in this one.
        store.remove_opening(room.id, None).await.unwrap();
        store.remove_opening(room.id, Some(older)).await.unwrap();
        assert!(store.opening(room.id).await.unwrap().is_some());
        store.remove_opening(room.id, Some(newer)).await.unwrap();
        assert_eq!(store.opening(room.id).await.unwrap(), None);
    }
}

//! The store knows which rooms the log has not opened.

use super::*;

contract![
    new_room_is_unopened,
    opening_shows_the_current_room,
    opening_has_at_most_1000_members,
    opening_of_a_deleted_room_stays,
    unopened_rooms_are_paged,
    all_rooms_are_opened_again,
];

async fn new_room_is_unopened(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let opening = Opening { private: Some(false), members: vec![(tea.creator.id, Role::Owner)], epoch: None };
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
    assert_eq!(store.opening(tea.id).await.unwrap(), Some(Opening { private: Some(true), members, epoch: None }));
}

async fn opening_has_at_most_1000_members(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let set = (0..1500).map(|_| Member { user: user(), role: Role::Member, joined_at_ms: 500 }).collect();
    let (_, event) = change(&tea, "Tea");
    assert!(store.change_members(MemberChange { set, removed: None, joins: None, event }).await.unwrap());
    let members = store.opening(tea.id).await.unwrap().unwrap().members;
    assert_eq!((members.len(), members[0]), (1000, (tea.creator.id, Role::Owner)));
}

async fn opening_of_a_deleted_room_stays(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    assert!(store.delete(deletion(&tea)).await.unwrap());
    assert_eq!(store.opening(tea.id).await.unwrap(), Some(Opening { private: None, members: Vec::new(), epoch: None }));
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

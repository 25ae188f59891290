//! Private rooms are hidden from users who are not members.

use super::*;

contract![
    names_are_unique_among_public_rooms_only,
    readers_see_public_rooms_and_their_own,
    several_rooms_are_checked_at_once,
    pages_of_both_kinds_are_in_one_order,
];

async fn made_private(store: &Arc<dyn Store>, name: &str, created_at_ms: i64, creator: &User) -> Room {
    let room = Room { private: true, creator: creator.clone(), created_at_ms, ..room(name) };
    assert!(store.create(room.clone()).await.unwrap());
    room
}

/// Returns the change of a room's visibility.
fn visibility(room: &Room, private: bool) -> (Room, RoomEvent) {
    let (room, event) = change(room, &room.name);
    (Room { private, ..room }, event)
}

async fn names_are_unique_among_public_rooms_only(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let hidden = made_private(&store, "TEA", 1000, &user()).await;
    made_private(&store, "tea", 1000, &user()).await;
    let (shown, event) = visibility(&hidden, false);
    assert_eq!(store.update(shown, event).await.unwrap_err().code, Code::RoomNameTaken);
    assert_eq!(first(&store, hidden.id).await, None);
    // A room that becomes private frees its name.
    let (tea, event) = visibility(&tea, true);
    assert!(store.update(tea.clone(), event).await.unwrap());
    assert!(get(&store, tea.id).await.unwrap().private);
    let (shown, event) = visibility(&hidden, false);
    assert!(store.update(shown, event).await.unwrap());
    assert_eq!(store.create(room("Tea")).await.unwrap_err().code, Code::RoomNameTaken);
}

async fn readers_see_public_rooms_and_their_own(store: Arc<dyn Store>) {
    let (ada, bob) = (user(), user());
    made(&store, "Tea").await;
    let hidden = made_private(&store, "Green tea", 900, &ada).await;
    for (reader, names) in [(None, vec!["Tea"]), (Some(bob.id), vec!["Tea"]), (Some(ada.id), vec!["Tea", "Green tea"])]
    {
        assert_eq!(found_by(&store, reader, "").await, names);
        assert_eq!(found_by(&store, reader, "tea").await, names);
        let role = (reader == Some(ada.id)).then_some(Role::Owner);
        let seen = store.get(hidden.id, reader).await.unwrap().unwrap();
        assert_eq!((seen.role, seen.is_visible()), (role, role.is_some()));
    }
}

async fn several_rooms_are_checked_at_once(store: Arc<dyn Store>) {
    let (ada, bob) = (user(), user());
    let (shown, hidden) = (made(&store, "Tea").await, made_private(&store, "Green tea", 900, &ada).await);
    let ids = vec![hidden.id, Uuid::now_v7(), shown.id];
    let visible = async |user: &User| {
        let visible = store.visible(ids.clone(), user.id).await.unwrap();
        visible.into_iter().collect::<BTreeSet<_>>()
    };
    assert_eq!(visible(&ada).await, BTreeSet::from([shown.id, hidden.id]));
    assert_eq!(visible(&bob).await, BTreeSet::from([shown.id]));
    assert!(store.visible(Vec::new(), ada.id).await.unwrap().is_empty());
}

async fn pages_of_both_kinds_are_in_one_order(store: Arc<dyn Store>) {
    let ada = user();
    let mut expected = Vec::new();
    for number in 0..20 {
        // Public rooms, rooms of the reader, and rooms of other users; some share their millisecond.
        let (name, created_at_ms) = (format!("tea {number}"), 1000 + number / 2);
        let room = match number % 4 {
            0 => made_private(&store, &name, created_at_ms, &user()).await,
            1 => made_private(&store, &name, created_at_ms, &ada).await,
            _ => {
                let room = Room { created_at_ms, ..room(&name) };
                assert!(store.create(room.clone()).await.unwrap());
                room
            }
        };
        if number % 4 != 0 {
            expected.push(room);
        }
    }
    expected.sort_by_key(|room| std::cmp::Reverse(room.position()));
    for query in ["", "tea"] {
        let (mut below, mut read) = (Position::TOP, Vec::new());
        loop {
            let page = if query.is_empty() {
                store.list(Some(ada.id), below, 4).await.unwrap()
            } else {
                store.search(Some(ada.id), query.into(), below, 4).await.unwrap()
            };
            let Some(last) = page.last() else { break };
            below = last.room.position();
            for Seen { room, role } in page {
                assert_eq!(role, (room.creator == ada).then_some(Role::Owner));
                read.push(room);
            }
        }
        assert_eq!(read, expected);
    }
}

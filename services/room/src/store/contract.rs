//! The contract of both stores.

use std::collections::BTreeSet;
use std::sync::Arc;

use confab_common::pg::PostgresConfig;
use confab_common::{Code, testing};
use uuid::Uuid;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::*;

/// Runs each of these tests on both stores.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::postgres().await).await })* }
    };
}

mod acquaintances;
mod earlier;
mod members;
mod openings;
mod private;
mod quota;
mod search;
mod upgrade;

contract![
    room_is_created_once,
    deleted_room_is_never_restored,
    names_are_unique_in_every_spelling,
    one_of_concurrent_uses_of_a_name_wins,
    concurrent_repeats_create_one_room,
    pages_are_exact_while_rooms_are_created,
    search_takes_the_query_literally,
    change_requires_the_current_revision,
    concurrent_changes_are_numbered_without_gaps,
    outbox_is_ordered_within_each_room,
    operations_are_remembered,
];

fn sqlite() -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&testing::directory().join("room.db")).unwrap())
}

async fn postgres() -> Arc<dyn Store> {
    Arc::new(PostgresStore::open(&testing::database().await, &config()).await.unwrap())
}

fn config() -> PostgresConfig {
    PostgresConfig { postgres_connections: 8, ..PostgresConfig::default() }
}

fn user() -> User {
    User { id: Uuid::now_v7(), username: "ada".into() }
}

fn room(name: &str) -> Room {
    Room {
        id: Uuid::now_v7(),
        name: name.into(),
        description: String::new(),
        creator: user(),
        created_at_ms: 1000,
        revision: 0,
        private: false,
    }
}

async fn made(store: &Arc<dyn Store>, name: &str) -> Room {
    let room = room(name);
    assert!(store.create(room.clone()).await.unwrap());
    room
}

/// Returns the next change of a room.
fn change(room: &Room, name: &str) -> (Room, RoomEvent) {
    let room = Room { name: name.into(), revision: room.revision + 1, ..room.clone() };
    let event = RoomEvent {
        event: "roomUpdated".into(),
        data: format!("{{\"name\":{name:?}}}"),
        closes_room: false,
        ..deletion(&room)
    };
    (room.clone(), RoomEvent { number: room.revision, ..event })
}

/// Returns the deletion of a room.
fn deletion(room: &Room) -> RoomEvent {
    RoomEvent {
        id: Uuid::now_v7(),
        room_id: room.id,
        number: room.revision + 1,
        sender: user(),
        event: "roomDeleted".into(),
        data: "{}".into(),
        closes_room: true,
        access: None,
    }
}

/// Returns a room, whether or not it is private.
async fn get(store: &Arc<dyn Store>, id: Uuid) -> Option<Room> {
    store.get(id, None).await.unwrap().map(|seen| seen.room)
}

/// Returns the oldest event of a room in the outbox.
async fn first(store: &Arc<dyn Store>, room: Uuid) -> Option<Owed> {
    store.oldest(room, 1).await.unwrap().pop()
}

/// Returns the names of the rooms that an anonymous reader finds.
async fn found(store: &Arc<dyn Store>, query: &str) -> Vec<String> {
    found_by(store, None, query).await
}

async fn found_by(store: &Arc<dyn Store>, reader: Option<Uuid>, query: &str) -> Vec<String> {
    let rooms = match searchable(query) {
        query if query.is_empty() => store.list(reader, Position::TOP, 200).await,
        query => store.search(reader, query, Position::TOP, 200).await,
    };
    rooms.unwrap().into_iter().map(|seen| seen.room.name).collect()
}

async fn room_is_created_once(store: Arc<dyn Store>) {
    let first = Room { description: "leaves\nand water".into(), ..room("Tea") };
    assert!(store.create(first.clone()).await.unwrap());
    let again = Room { created_at_ms: 2000, ..first.clone() };
    assert!(!store.create(again).await.unwrap(), "neither the id nor the name is a collision");
    assert!(!store.create(Room { name: "Coffee".into(), ..first.clone() }).await.unwrap());
    assert_eq!(get(&store, first.id).await, Some(first));
    assert_eq!(get(&store, Uuid::now_v7()).await, None);
}

async fn deleted_room_is_never_restored(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let event = deletion(&tea);
    assert!(store.delete(event.clone()).await.unwrap());
    assert!(!store.delete(deletion(&tea)).await.unwrap());
    assert_eq!(get(&store, tea.id).await, None);
    assert_eq!(found(&store, "").await, [""; 0]);
    assert_eq!(store.closing(tea.id).await.unwrap(), Some(Owed { event, room_gone: true, unopened: true }));
    assert!(!store.create(tea).await.unwrap(), "a late repeat must not restore the room");
    made(&store, "tea").await;
}

async fn names_are_unique_in_every_spelling(store: Arc<dyn Store>) {
    made(&store, "Äpfel").await;
    made(&store, "ПРИВЕТ").await;
    for taken in ["äPFEL", "a\u{308}pfel", "A\u{308}PFEL", "привет"] {
        assert_eq!(store.create(room(taken)).await.unwrap_err().code, Code::RoomNameTaken, "{taken}");
    }
    let other = made(&store, "Apfel").await;
    let (renamed, event) = change(&other, "Привет");
    assert_eq!(store.update(renamed, event).await.unwrap_err().code, Code::RoomNameTaken);
    assert_eq!(first(&store, other.id).await, None, "a rejected change adds no event");
    // The room's own name in another spelling is not a collision.
    let (renamed, event) = change(&other, "APFEL");
    assert!(store.update(renamed, event).await.unwrap());
}

async fn one_of_concurrent_uses_of_a_name_wins(store: Arc<dyn Store>) {
    let (a, b) = (made(&store, "a").await, made(&store, "b").await);
    let rename = |room: &Room| {
        let (room, event) = change(room, "Same");
        store.update(room, event)
    };
    let (fresh, renamed_a, renamed_b) = tokio::join!(store.create(room("same")), rename(&a), rename(&b));
    let outcomes = [fresh, renamed_a, renamed_b];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(true))).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|error| error.code == Code::RoomNameTaken));
}

async fn concurrent_repeats_create_one_room(store: Arc<dyn Store>) {
    let tea = room("Tea");
    let repeats = (0..6).map(|_| store.create(tea.clone()));
    let outcomes = futures::future::join_all(repeats).await;
    assert_eq!(outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1);
}

async fn pages_are_exact_while_rooms_are_created(store: Arc<dyn Store>) {
    let mut expected = BTreeSet::new();
    for number in 0..60 {
        // Groups of three share their millisecond.
        let room = Room { created_at_ms: 1000 + number / 3, ..room(&format!("old {number}")) };
        store.create(room.clone()).await.unwrap();
        expected.insert(room.position());
    }
    let writer = async {
        for number in 0..60 {
            store.create(Room { created_at_ms: 5000 + number, ..room(&format!("new {number}")) }).await.unwrap();
        }
    };
    let reader = async {
        let (mut below, mut seen) = (Position::TOP, Vec::new());
        loop {
            let page = store.list(None, below, 7).await.unwrap();
            let Some(last) = page.last() else { return seen };
            below = last.room.position();
            seen.extend(page.iter().map(|seen| seen.room.position()));
        }
    };
    let ((), seen) = tokio::join!(writer, reader);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first, without duplicates");
    assert!(expected.is_subset(&seen.into_iter().collect()));
}

async fn search_takes_the_query_literally(store: Arc<dyn Store>) {
    for (name, description) in
        [("100% tea", ""), ("snake_case", "a\\b"), ("Чайная", "Só para CAFÉ"), ("ΟΔΟΣΑ", "x"), ("O'Hara", "")]
    {
        store.create(Room { description: description.into(), ..room(name) }).await.unwrap();
    }
    for (query, name) in [
        ("%", "100% tea"),
        ("_", "snake_case"),
        ("A\\B", "snake_case"),
        ("чАЙН", "Чайная"),
        ("cafe\u{301}", "Чайная"),
        ("ΟΔΟΣ", "ΟΔΟΣΑ"),
        ("'h", "O'Hara"),
    ] {
        assert_eq!(found(&store, query).await, [name], "{query}");
    }
    for query in ["%%", "t_a", "чай_", "нет", "' OR ''='"] {
        assert_eq!(found(&store, query).await, [""; 0], "{query}");
    }
    assert_eq!(found(&store, "").await.len(), 5);
}

async fn change_requires_the_current_revision(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let (coffee, event) = change(&tea, "Coffee");
    assert!(store.update(coffee.clone(), event.clone()).await.unwrap());
    let (water, late) = change(&tea, "Water");
    assert!(!store.update(water, late).await.unwrap(), "the change was decided on an older state");
    assert!(!store.delete(deletion(&tea)).await.unwrap());
    assert_eq!(get(&store, tea.id).await, Some(coffee));
    assert_eq!(first(&store, tea.id).await, Some(Owed { event, room_gone: false, unopened: true }));
    assert_eq!(found(&store, "coff").await, ["Coffee"]);
    assert_eq!(found(&store, "tea").await, [""; 0]);
}

async fn concurrent_changes_are_numbered_without_gaps(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let changing = (0..8).map(|writer| {
        let (store, id) = (store.clone(), tea.id);
        async move {
            for turn in 0..5 {
                loop {
                    let current = get(&store, id).await.unwrap();
                    let (room, event) = change(&current, &format!("{writer}.{turn}"));
                    if store.update(room, event).await.unwrap() {
                        break;
                    }
                }
            }
        }
    });
    futures::future::join_all(changing).await;
    let last = get(&store, tea.id).await.unwrap();
    assert_eq!(last.revision, 40);
    let mut data = String::new();
    for number in 1..=40 {
        let owed = first(&store, tea.id).await.unwrap();
        assert_eq!(owed.event.number, number);
        data = owed.event.data;
        store.remove_events(vec![owed.event.id]).await.unwrap();
    }
    assert_eq!(data, format!("{{\"name\":{:?}}}", last.name), "the last event describes the last change");
    assert_eq!(first(&store, tea.id).await, None);
}

async fn operations_are_remembered(store: Arc<dyn Store>) {
    confab_common::operations::check(store.operations()).await;
}

async fn outbox_is_ordered_within_each_room(store: Arc<dyn Store>) {
    let mut rooms = Vec::new();
    for name in ["a", "b", "c"] {
        let room = made(&store, name).await;
        let (room, event) = change(&room, &format!("{name}{name}"));
        store.update(room.clone(), event).await.unwrap();
        store.delete(deletion(&room)).await.unwrap();
        rooms.push(room.id);
    }
    rooms.sort();
    let mut after = Uuid::nil();
    for expected in &rooms {
        let page = store.oldest_of_rooms(after, 1, 1).await.unwrap();
        assert_eq!(
            page.iter().map(|owed| (owed.event.room_id, owed.event.number)).collect::<Vec<_>>(),
            [(*expected, 1)]
        );
        after = page[0].event.room_id;
    }
    let two = store.oldest_of_rooms(Uuid::nil(), 2, 2).await.unwrap();
    let numbers = two.iter().map(|owed| (owed.event.room_id, owed.event.number)).collect::<Vec<_>>();
    assert_eq!(numbers, [(rooms[0], 1), (rooms[0], 2), (rooms[1], 1), (rooms[1], 2)]);
    let of_one = store.oldest(rooms[2], 10).await.unwrap();
    assert_eq!(of_one.iter().map(|owed| owed.event.number).collect::<Vec<_>>(), [1, 2]);
    for number in [1, 2] {
        let all = store.oldest_of_rooms(Uuid::nil(), 10, 1).await.unwrap();
        assert!(all.iter().all(|owed| owed.room_gone && owed.event.number == number));
        assert_eq!(all.iter().map(|owed| owed.event.room_id).collect::<Vec<_>>(), rooms);
        store.remove_events(all.iter().map(|owed| owed.event.id).collect()).await.unwrap();
    }
    assert_eq!(store.oldest_of_rooms(Uuid::nil(), 10, 1).await.unwrap(), []);
    store.remove_events(vec![Uuid::now_v7()]).await.unwrap();
}

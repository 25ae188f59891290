//! Searches find the right rooms, and end in time.

use std::collections::HashSet;
use std::time::Duration;

use confab_common::{Error, Secret};
use refinery::Target;
use tokio_postgres::{Client, NoTls};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::store::{SEARCH_BOUNDS, SearchBounds, postgres, sqlite};

/// Characters with a special meaning in patterns. There are few, so that searches find many rooms.
const CHARACTERS: [&str; 20] =
    ["a", "b", "A", "ß", "s", "e\u{301}", "é", "σ", "ς", "İ", "山", "🍵", "%", "_", "'", "\"", "\\", " ", "*", "1"];

/// Bounds with which each search reads along the list if possible, or never does.
const EDGES: [SearchBounds; 2] = [SearchBounds { rooms: 0, ..PATIENT }, SearchBounds { rooms: 1_000_000, ..PATIENT }];
const PATIENT: SearchBounds = SearchBounds { time: Duration::from_secs(60), ..SEARCH_BOUNDS };

fn on_sqlite(bounds: SearchBounds) -> SqliteStore {
    let mut store = SqliteStore::open(&testing::directory().join("room.db")).unwrap();
    store.bounds = bounds;
    store
}

async fn on_postgres(url: &Secret, bounds: SearchBounds) -> PostgresStore {
    let mut store = PostgresStore::open(url, &config()).await.unwrap();
    store.bounds = bounds;
    store
}

/// A generator of the same texts in every run.
struct Texts(u64);

impl Texts {
    fn number(&mut self, below: usize) -> usize {
        self.0 += 1;
        (xxh3_64(&self.0.to_le_bytes()) % below as u64) as usize
    }

    fn text(&mut self, shortest: usize, longest: usize) -> String {
        let length = shortest + self.number(longest - shortest + 1);
        (0..length).map(|_| CHARACTERS[self.number(CHARACTERS.len())]).collect()
    }
}

#[tokio::test]
async fn searches_find_what_a_filter_finds() {
    for bounds in EDGES {
        finds_what_a_filter_finds(Arc::new(on_sqlite(bounds))).await;
        finds_what_a_filter_finds(Arc::new(on_postgres(&testing::database().await, bounds).await)).await;
    }
}

async fn finds_what_a_filter_finds(store: Arc<dyn Store>) {
    let mut texts = Texts(0);
    let mut names = HashSet::new();
    let mut rooms = Vec::new();
    // A quarter of the rooms is private, and half of those belong to the reader.
    let reader = user();
    while rooms.len() < 240 {
        let room = Room {
            description: texts.text(0, 7),
            created_at_ms: 1000 + rooms.len() as i64 / 3,
            creator: if rooms.len() % 8 == 3 { reader.clone() } else { user() },
            private: rooms.len() % 4 == 3,
            ..room(&texts.text(1, 6))
        };
        if names.insert(room.folded_name()) {
            rooms.push(room);
        }
    }
    assert!(
        futures::future::join_all(rooms.iter().map(|room| store.create(room.clone())))
            .await
            .into_iter()
            .all(|made| made.unwrap())
    );
    agree(&store, &reader, &rooms, &mut texts).await;

    // A third of the rooms is changed, a third is deleted.
    let changed = rooms.iter_mut().step_by(3).map(|room| {
        let description = texts.text(0, 7);
        let (changed, event) = change(&Room { description, ..room.clone() }, &room.name);
        *room = changed.clone();
        store.update(changed, event)
    });
    assert!(futures::future::join_all(changed).await.into_iter().all(|done| done.unwrap()));
    let gone = rooms.iter().skip(1).step_by(3).map(|room| store.delete(deletion(room)));
    assert!(futures::future::join_all(gone).await.into_iter().all(|done| done.unwrap()));
    rooms = rooms.into_iter().enumerate().filter(|(at, _)| at % 3 != 1).map(|(_, room)| room).collect();
    for room in &rooms[..10] {
        store.refold(room.clone()).await.unwrap();
    }
    agree(&store, &reader, &rooms, &mut texts).await;
}

/// Compares the results of many searches with a filter over all rooms, for a reader and for an anonymous reader.
async fn agree(store: &Arc<dyn Store>, reader: &User, rooms: &[Room], texts: &mut Texts) {
    for reader in [None, Some(reader.id)] {
        let visible = rooms.iter().filter_map(|room| {
            let role = (Some(room.creator.id) == reader).then_some(Role::Owner);
            Some(Seen { room: room.clone(), role }).filter(Seen::is_visible)
        });
        agree_for(store, reader, visible.collect(), texts).await;
    }
}

async fn agree_for(store: &Arc<dyn Store>, reader: Option<Uuid>, mut rooms: Vec<Seen>, texts: &mut Texts) {
    let search = |query: &str, below, limit| store.search(reader, query.into(), below, limit);
    rooms.sort_by_key(|seen| std::cmp::Reverse(seen.room.position()));
    let mut queries = (0..150).map(|_| searchable(&texts.text(1, 4))).collect::<Vec<_>>();
    queries.extend(["\u{1f}", "%", "a\u{1f}", "\u{1f}a", "\u{1f}\u{1f}"].map(String::from));
    for seen in rooms.iter().step_by(5) {
        let text = seen.room.search().chars().collect::<Vec<_>>();
        let start = texts.number(text.len());
        let end = start + 1 + texts.number(text.len() - start);
        queries.push(text[start..end].iter().collect());
        queries.push(seen.room.search());
    }
    let mut hits = 0;
    for query in queries {
        let expected = rooms.iter().filter(|seen| seen.room.search().contains(&query)).cloned().collect::<Vec<_>>();
        hits += usize::from(!expected.is_empty());
        assert_eq!(search(&query, Position::TOP, 1000).await.unwrap(), expected, "{query:?}");
        let page = search(&query, Position::TOP, 3).await.unwrap();
        assert_eq!(page, expected[..expected.len().min(3)], "{query:?}");
        if let Some(last) = page.last() {
            let next = search(&query, last.room.position(), 3).await.unwrap();
            assert_eq!(next, expected[page.len()..expected.len().min(6)], "{query:?}");
        }
    }
    assert!(hits > 100, "{hits}");
}

/// The statement with which the previous release inserts a room.
fn earlier(name: &str, id: &str) -> String {
    format!(
        "INSERT INTO rooms (id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision)
        VALUES ({id}, '{name}', '{name}', 'warm', '{name}\u{1f}warm', {id}, 'ada', 1000, 0)"
    )
}

#[tokio::test]
async fn rooms_of_the_release_before_are_found_on_sqlite() {
    let path = testing::directory().join("room.db");
    let mut before = rusqlite::Connection::open(&path).unwrap();
    sqlite::embedded::migrations::runner().set_target(Target::Version(1)).run(&mut before).unwrap();
    let write = |connection: &rusqlite::Connection, name| {
        connection.execute(&earlier(name, &format!("X'{}'", Uuid::now_v7().simple())), []).unwrap();
    };
    write(&before, "tea");
    drop(before);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    assert_eq!(found(&store, "TEA").await, ["tea"]);
    // The previous release does not use the index, and runs during an upgrade or after a rollback.
    write(&rusqlite::Connection::open(&path).unwrap(), "green tea");
    assert_eq!(found(&store, "en te").await, ["green tea"]);
    assert_eq!(found(&store, "warm").await.len(), 2);
}

async fn client(url: &Secret) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS room; SET search_path TO room").await.unwrap();
    client
}

#[tokio::test]
async fn rooms_of_the_release_before_are_found_on_postgres() {
    let url = testing::database().await;
    let mut before = client(&url).await;
    postgres::embedded::migrations::runner().set_target(Target::Version(1)).run_async(&mut before).await.unwrap();
    let write = async |name| before.batch_execute(&earlier(name, &format!("'{}'", Uuid::now_v7()))).await.unwrap();
    write("tea").await;
    // With the index only.
    let store: Arc<dyn Store> = Arc::new(on_postgres(&url, EDGES[0]).await);
    assert_eq!(found(&store, "TEA").await, ["tea"]);
    write("green tea").await;
    assert_eq!(found(&store, "en te").await, ["green tea"]);
    assert_eq!(found(&store, "warm").await.len(), 2);
}

/// Checks the error of a search beyond its limit: it contains advice.
#[track_caller]
fn took_too_long(error: &Error) {
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    assert!(error.detail.contains("search for more letters"), "{error}");
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended_on_sqlite() {
    let mut store = on_sqlite(SearchBounds { time: Duration::ZERO, rooms: 0 });
    let rooms = (0..500).map(|number| store.create(room(&format!("{number} aba bab"))));
    futures::future::join_all(rooms).await;
    // All pieces of the query occur in every room.
    took_too_long(&store.search(None, "abab".into(), Position::TOP, 50).await.unwrap_err());
    store.bounds.time = PATIENT.time;
    assert_eq!(store.search(None, "abab".into(), Position::TOP, 50).await.unwrap(), []);
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended_on_postgres() {
    let url = testing::database().await;
    let mut store = on_postgres(&url, SEARCH_BOUNDS).await;
    let tea = room("tea");
    assert!(store.create(tea.clone()).await.unwrap());
    let other = client(&url).await;
    other.batch_execute("BEGIN; LOCK TABLE rooms").await.unwrap();
    took_too_long(&store.search(None, "tea".into(), Position::TOP, 50).await.unwrap_err());
    other.batch_execute("ROLLBACK").await.unwrap();
    store.bounds = PATIENT;
    let found = store.search(None, "tea".into(), Position::TOP, 50).await.unwrap();
    assert_eq!(found, [Seen { room: tea, role: None }]);
}

#[tokio::test]
async fn searches_on_sqlite_take_no_connection_of_others() {
    let store = on_sqlite(PATIENT);
    let tea = room("tea");
    assert!(store.create(tea.clone()).await.unwrap());
    let mut releases = Vec::new();
    let mut busy = Vec::new();
    for _ in 0..store.searches() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        releases.push(release);
        busy.push(Box::pin(store.searchers.read(move |_| released.recv().map_err(Error::internal))));
        assert!(futures::poll!(busy.last_mut().unwrap()).is_pending());
    }
    let mut search = store.search(None, "tea".into(), Position::TOP, 50);
    assert!(futures::poll!(&mut search).is_pending());
    let tea = Seen { room: tea, role: None };
    assert_eq!(store.get(tea.room.id, None).await.unwrap().as_ref(), Some(&tea));
    assert_eq!(store.list(None, Position::TOP, 50).await.unwrap(), std::slice::from_ref(&tea));
    assert!(futures::poll!(&mut search).is_pending());
    releases.iter().for_each(|release| release.send(()).unwrap());
    assert_eq!(search.await.unwrap(), [tea]);
}

//! The contract of a store, tested on both implementations.

use std::collections::BTreeSet;
use std::sync::Arc;

use confab_common::pg::PostgresConfig;
use confab_common::testing;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::*;

/// Runs each test on both stores.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::postgres().await).await })* }
    };
}

mod quota;

contract![
    file_round_trips,
    upload_is_stored_once,
    concurrent_uploads_with_one_client_id_create_one_file,
    pending_file_is_hidden_until_ready,
    pages_are_exact_while_files_are_added,
    files_are_attached_all_or_none,
    concurrent_attaches_put_a_file_in_one_room,
    deletion_fills_the_queues,
    only_pending_files_are_abandoned,
    rooms_are_found_and_emptied,
    known_ids_are_files_and_unwanted_objects,
    installation_is_created_once_and_its_turns_advance,
    operations_are_remembered,
];

const NONE: [Uuid; 0] = [];

fn sqlite() -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&testing::directory().join("file.db")).unwrap())
}

async fn postgres() -> Arc<dyn Store> {
    let config = PostgresConfig { postgres_connections: 8, ..PostgresConfig::default() };
    Arc::new(PostgresStore::open(&testing::database().await, &config).await.unwrap())
}

fn user() -> User {
    User { id: Uuid::now_v7(), username: "ada".into() }
}

/// Creates a file without a room.
fn file(uploader: &User) -> File {
    File {
        id: Uuid::now_v7(),
        name: "Чай.png".into(),
        size: 64 << 30,
        content_type: "image/png".into(),
        sha256: "ab".repeat(32),
        safe_inline: true,
        uploader: uploader.clone(),
        created_at_ms: 1000,
        link_key: LinkKey::random().unwrap(),
        room: None,
        client_message_id: None,
        event: None,
        ready: true,
    }
}

/// Creates a file uploaded to a room whose event is not in the log yet.
fn pending(uploader: &User, room: Uuid) -> File {
    File { room: Some(room), event: Some(Uuid::now_v7()), ready: false, ..file(uploader) }
}

async fn added(store: &Arc<dyn Store>, file: File) -> File {
    assert_eq!(store.add(file.clone()).await.unwrap(), file);
    file
}

async fn ids(store: &Arc<dyn Store>, of: Of) -> Vec<Uuid> {
    store.list(of, Position::TOP, 200).await.unwrap().into_iter().map(|file| file.id).collect()
}

async fn unwanted(store: &Arc<dyn Store>) -> Vec<Uuid> {
    store.unwanted(Uuid::nil(), 200).await.unwrap()
}

async fn forgets(store: &Arc<dyn Store>) -> Vec<Forget> {
    store.forgets(Uuid::nil(), 200).await.unwrap()
}

async fn file_round_trips(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let roomless = added(&store, file(&ada)).await;
    let named = File { client_message_id: Some("é\n".into()), safe_inline: false, ..pending(&ada, room) };
    added(&store, named.clone()).await;
    assert_eq!(store.get(roomless.id).await.unwrap(), Some(roomless));
    assert_eq!(store.get(named.id).await.unwrap(), Some(named));
    assert_eq!(store.get(Uuid::now_v7()).await.unwrap(), None);
}

async fn upload_is_stored_once(store: Arc<dyn Store>) {
    let (ada, bob, room) = (user(), user(), Uuid::now_v7());
    let named = |file: File| File { client_message_id: Some("1".into()), ..file };
    let roomless = added(&store, named(file(&ada))).await;
    let shared = added(&store, named(pending(&ada, room))).await;
    added(&store, named(pending(&ada, Uuid::now_v7()))).await;
    added(&store, named(file(&bob))).await;
    added(&store, named(pending(&bob, room))).await;
    added(&store, file(&ada)).await;
    added(&store, file(&ada)).await;

    assert_eq!(store.add(named(file(&ada))).await.unwrap(), roomless);
    assert_eq!(store.add(named(pending(&ada, room))).await.unwrap(), shared);
    let first = async |room, id: &str| {
        let upload = Upload { uploader: ada.id, room: Some(room), client_message_id: id.into() };
        store.first(upload).await.unwrap()
    };
    assert_eq!(first(room, "1").await, Some(shared));
    assert_eq!((first(room, "2").await, first(Uuid::now_v7(), "1").await), (None, None));
    // It remains the same upload after it was attached to a room.
    let other = Uuid::now_v7();
    assert!(store.attach(vec![roomless.id], other, ada.id).await.unwrap());
    assert_eq!(store.add(named(file(&ada))).await.unwrap(), File { room: Some(other), ..roomless.clone() });
    added(&store, named(pending(&ada, other))).await;
    // A deleted upload does not count.
    assert!(store.delete(roomless.id).await.unwrap());
    added(&store, named(file(&ada))).await;
}

async fn concurrent_uploads_with_one_client_id_create_one_file(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let uploads = (0..6).map(|_| store.add(File { client_message_id: Some("1".into()), ..pending(&ada, room) }));
    let stand = futures::future::join_all(uploads).await;
    let stand = stand.into_iter().map(|file| file.unwrap().id).collect::<BTreeSet<_>>();
    assert_eq!(stand.len(), 1);
    assert_eq!(store.pending(Uuid::nil(), 10).await.unwrap().len(), 1);
}

async fn pending_file_is_hidden_until_ready(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(added(&store, pending(&ada, room)).await);
    }
    assert_eq!(store.pending(Uuid::nil(), 2).await.unwrap(), files[..2]);
    assert_eq!(store.pending(files[1].id, 2).await.unwrap(), files[2..]);
    assert_eq!((ids(&store, Of::Room(room)).await, ids(&store, Of::Uploader(ada.id)).await), (vec![], vec![]));
    assert!(!store.attach(vec![files[0].id], room, ada.id).await.unwrap());

    store.mark_ready(vec![files[0].id, files[2].id, Uuid::now_v7()]).await.unwrap();
    assert_eq!(store.pending(Uuid::nil(), 10).await.unwrap(), files[1..2]);
    let ready = vec![files[2].id, files[0].id];
    assert_eq!((ids(&store, Of::Room(room)).await, ids(&store, Of::Uploader(ada.id)).await), (ready.clone(), ready));
    assert!(store.get(files[0].id).await.unwrap().unwrap().ready);
}

async fn pages_are_exact_while_files_are_added(store: Arc<dyn Store>) {
    let ada = user();
    let mut expected = BTreeSet::new();
    for number in 0..60 {
        // Groups of three files share their millisecond.
        let file = added(&store, File { created_at_ms: 1000 + number / 3, ..file(&ada) }).await;
        expected.insert(file.position());
    }
    let writer = async {
        for number in 0..60 {
            added(&store, File { created_at_ms: 5000 + number, ..file(&ada) }).await;
        }
    };
    let reader = async {
        let (mut below, mut seen) = (Position::TOP, Vec::new());
        loop {
            let page = store.list(Of::Uploader(ada.id), below, 7).await.unwrap();
            let Some(last) = page.last() else { return seen };
            below = last.position();
            seen.extend(page.iter().map(File::position));
        }
    };
    let ((), seen) = tokio::join!(writer, reader);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first, without duplicates");
    assert!(expected.is_subset(&seen.into_iter().collect()));
}

async fn files_are_attached_all_or_none(store: Arc<dyn Store>) {
    let (ada, bob, room, other) = (user(), user(), Uuid::now_v7(), Uuid::now_v7());
    let (one, two) = (added(&store, file(&ada)).await.id, added(&store, file(&ada)).await.id);
    let (bobs, elsewhere) =
        (added(&store, file(&bob)).await.id, added(&store, File { ready: true, ..pending(&ada, other) }).await.id);
    for bad in [vec![one, bobs], vec![elsewhere, two], vec![one, Uuid::now_v7()]] {
        assert!(!store.attach(bad, room, ada.id).await.unwrap());
    }
    assert_eq!(ids(&store, Of::Room(room)).await, NONE);
    assert!(store.attach(vec![two, one], room, ada.id).await.unwrap());
    assert!(store.attach(vec![bobs], room, bob.id).await.unwrap());
    let mut all = vec![one, two, bobs];
    all.sort();
    all.reverse();
    assert_eq!(ids(&store, Of::Room(room)).await, all);
    // Again, and by another user, after the files belong to the room.
    assert!(store.attach(all.clone(), room, bob.id).await.unwrap());
    assert!(!store.attach(vec![one], other, ada.id).await.unwrap());
    assert_eq!(ids(&store, Of::Uploader(ada.id)).await, [elsewhere, two, one]);
    assert!(store.attach(vec![], room, ada.id).await.unwrap());
}

async fn concurrent_attaches_put_a_file_in_one_room(store: Arc<dyn Store>) {
    let ada = user();
    for _ in 0..10 {
        let (one, two) = (added(&store, file(&ada)).await.id, added(&store, file(&ada)).await.id);
        let (here, there) = (Uuid::now_v7(), Uuid::now_v7());
        let attached = tokio::join!(
            store.attach(vec![one, two], here, ada.id),
            store.attach(vec![two, one], there, ada.id),
            store.delete(two)
        );
        let attached = (attached.0.unwrap(), attached.1.unwrap(), attached.2.unwrap());
        let in_rooms = (ids(&store, Of::Room(here)).await.len(), ids(&store, Of::Room(there)).await.len());
        assert!(attached.2);
        assert_eq!(in_rooms, (usize::from(attached.0), usize::from(attached.1)));
        assert!(in_rooms.0 + in_rooms.1 < 2);
    }
}

async fn deletion_fills_the_queues(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let (roomless, shared) = (added(&store, file(&ada)).await, added(&store, pending(&ada, room)).await);
    let attached = added(&store, file(&ada)).await;
    assert!(store.attach(vec![attached.id], room, ada.id).await.unwrap());
    for file in [&roomless, &shared, &attached] {
        assert!(store.delete(file.id).await.unwrap());
        assert!(!store.delete(file.id).await.unwrap());
        assert_eq!(store.get(file.id).await.unwrap(), None);
    }
    assert_eq!(unwanted(&store).await, [roomless.id, shared.id, attached.id]);
    assert_eq!(store.unwanted(roomless.id, 1).await.unwrap(), [shared.id]);
    assert_eq!(forgets(&store).await, [Forget { file: shared.id, room }, Forget { file: attached.id, room }]);
    assert_eq!(store.forgets(shared.id, 1).await.unwrap(), [Forget { file: attached.id, room }]);

    store.removed(vec![roomless.id, attached.id, Uuid::now_v7()]).await.unwrap();
    store.forgotten(vec![shared.id, Uuid::now_v7()]).await.unwrap();
    assert_eq!(unwanted(&store).await, [shared.id]);
    assert_eq!(forgets(&store).await, [Forget { file: attached.id, room }]);
}

async fn only_pending_files_are_abandoned(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let (refused, ready) = (added(&store, pending(&ada, room)).await, added(&store, pending(&ada, room)).await);
    store.mark_ready(vec![ready.id]).await.unwrap();
    store.abandon(vec![refused.id, ready.id]).await.unwrap();
    assert_eq!(store.get(refused.id).await.unwrap(), None);
    assert!(store.get(ready.id).await.unwrap().is_some());
    assert_eq!(unwanted(&store).await, [refused.id]);
    assert_eq!(forgets(&store).await, [Forget { file: refused.id, room }]);
}

async fn rooms_are_found_and_emptied(store: Arc<dyn Store>) {
    let ada = user();
    let mut rooms = (0..5).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    rooms.sort();
    added(&store, file(&ada)).await;
    assert_eq!(store.rooms(Uuid::nil(), 10).await.unwrap(), NONE);
    for room in &rooms {
        for _ in 0..3 {
            added(&store, pending(&ada, *room)).await;
        }
    }
    assert_eq!(store.rooms(Uuid::nil(), 10).await.unwrap(), rooms);
    assert_eq!(store.rooms(Uuid::nil(), 2).await.unwrap(), rooms[..2]);
    assert_eq!(store.rooms(rooms[1], 2).await.unwrap(), rooms[2..4]);
    assert_eq!(store.rooms(rooms[4], 2).await.unwrap(), NONE);

    assert_eq!(store.empty(rooms[2], 2).await.unwrap(), 2);
    assert_eq!(store.empty(rooms[2], 2).await.unwrap(), 1);
    assert_eq!(store.empty(rooms[2], 2).await.unwrap(), 0);
    assert_eq!(store.rooms(rooms[1], 2).await.unwrap(), rooms[3..5]);
    assert_eq!(unwanted(&store).await.len(), 3);
    assert_eq!(forgets(&store).await, [], "a closed room cannot be read any more");
}

async fn known_ids_are_files_and_unwanted_objects(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let mut all = Vec::new();
    for number in 0..6 {
        all.push(added(&store, if number % 2 == 0 { file(&ada) } else { pending(&ada, room) }).await.id);
    }
    store.delete(all[0]).await.unwrap();
    store.delete(all[3]).await.unwrap();
    assert_eq!(store.known(Uuid::nil(), 10).await.unwrap(), all);
    assert_eq!(store.known(Uuid::nil(), 4).await.unwrap(), all[..4]);
    assert_eq!(store.known(all[3], 4).await.unwrap(), all[4..]);
    store.removed(vec![all[3]]).await.unwrap();
    assert_eq!(store.known(all[2], 1).await.unwrap(), all[4..5]);
}

async fn installation_is_created_once_and_its_turns_advance(store: Arc<dyn Store>) {
    let asked = futures::future::join_all((0..6).map(|_| store.installation())).await;
    let first = store.installation().await.unwrap();
    assert!(asked.into_iter().all(|one| one.unwrap() == first));
    assert!(!first.database.is_empty() && first.turn != first.next);

    // Replicas that take the same turn take it once.
    for _ in 0..2 {
        store.turn(first.next).await.unwrap();
    }
    let second = store.installation().await.unwrap();
    assert_eq!((second.id, &second.database, second.turn), (first.id, &first.database, first.next));
    assert!(second.next > first.next);
    store.turn(Uuid::now_v7()).await.unwrap();
    assert_eq!(store.installation().await.unwrap(), second);

    store.renew_turns().await.unwrap();
    let third = store.installation().await.unwrap();
    assert_eq!(third.id, first.id);
    assert!(![second.turn, second.next].contains(&third.turn) && third.turn != third.next);
}

async fn operations_are_remembered(store: Arc<dyn Store>) {
    confab_common::operations::check(store.operations()).await;
}

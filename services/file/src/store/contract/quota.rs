//! What each user stores is counted exactly, and bounded.

use confab_common::{Code, Secret};
use futures::future::join_all;
use refinery::Target;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::quota::{Quota, Usage};
use crate::store::{postgres::embedded as on_the_server, sqlite::embedded as in_a_file};

contract![
    usage_is_counted,
    quota_bounds_files_and_bytes,
    one_of_concurrent_uploads_gets_the_last_place,
    repeats_are_answered_at_the_quota,
    concurrent_deletions_of_many_users_do_not_wait_for_each_other,
];

/// At most 3 files of 1000 bytes together.
const QUOTA: Quota = Quota { files: 3, bytes: 1000 };

/// The schema of the release before.
const BEFORE: Target = Target::Version(2);

fn sqlite() -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&testing::directory().join("file.db")).unwrap().with_quota(QUOTA))
}

fn config() -> PostgresConfig {
    PostgresConfig { postgres_connections: 8, ..PostgresConfig::default() }
}

async fn postgres() -> Arc<dyn Store> {
    let store = PostgresStore::open(&testing::database().await, &config()).await.unwrap();
    Arc::new(store.with_quota(QUOTA))
}

/// Creates a file of this size without a room.
fn sized(uploader: &User, size: u64) -> File {
    File { size, ..file(uploader) }
}

fn named(file: File, client_message_id: &str) -> File {
    File { client_message_id: Some(client_message_id.into()), ..file }
}

async fn usage(store: &Arc<dyn Store>, user: &User) -> (u64, u64, u64) {
    let Usage { files, bytes, named } = store.usage(user.id).await.unwrap();
    (files, bytes, named)
}

async fn usage_is_counted(store: Arc<dyn Store>) {
    let (ada, bob, room) = (user(), user(), Uuid::now_v7());
    assert_eq!(usage(&store, &ada).await, (0, 0, 0));
    let first = added(&store, named(sized(&ada, 100), "1")).await;
    let shared = added(&store, File { size: 20, ..pending(&ada, room) }).await;
    let rejected = added(&store, named(File { size: 3, ..pending(&ada, room) }, "2")).await;
    added(&store, File { size: 7, ..pending(&bob, room) }).await;
    assert_eq!((usage(&store, &ada).await, usage(&store, &bob).await), ((3, 123, 2), (1, 7, 0)));

    assert!(store.attach(vec![first.id], Uuid::now_v7(), ada.id).await.unwrap());
    store.mark_ready(vec![shared.id]).await.unwrap();
    assert_eq!(usage(&store, &ada).await, (3, 123, 2));
    store.abandon(vec![shared.id, rejected.id]).await.unwrap();
    assert_eq!(usage(&store, &ada).await, (2, 120, 1));
    assert!(store.delete(first.id).await.unwrap());
    assert!(!store.delete(first.id).await.unwrap());
    assert_eq!(usage(&store, &ada).await, (1, 20, 0));
    assert_eq!(store.empty(room, 10).await.unwrap(), 2);
    assert_eq!((usage(&store, &ada).await, usage(&store, &bob).await), ((0, 0, 0), (0, 0, 0)));
}

async fn quota_bounds_files_and_bytes(store: Arc<dyn Store>) {
    let (ada, bob) = (user(), user());
    let first = added(&store, sized(&ada, 999)).await;
    let rejected = sized(&ada, 2);
    let error = store.add(rejected.clone()).await.unwrap_err();
    let detail = "the files of a user may have at most 1000 bytes together; delete some first";
    assert_eq!((error.code, &*error.detail), (Code::TooLarge, detail));
    assert_eq!(store.get(rejected.id).await.unwrap(), None);
    assert_eq!(usage(&store, &ada).await, (1, 999, 0));
    added(&store, sized(&ada, 1)).await;
    let empty = added(&store, sized(&ada, 0)).await;
    let error = store.add(sized(&ada, 0)).await.unwrap_err();
    assert_eq!((error.code, &*error.detail), (Code::TooLarge, "a user may store at most 3 files; delete some first"));
    assert_eq!(store.add(File { size: 0, ..pending(&ada, Uuid::now_v7()) }).await.unwrap_err().code, Code::TooLarge);
    added(&store, sized(&bob, 1000)).await;

    assert!(store.delete(empty.id).await.unwrap());
    assert_eq!(store.add(sized(&ada, 1)).await.unwrap_err().code, Code::TooLarge);
    assert!(store.delete(first.id).await.unwrap());
    added(&store, sized(&ada, 999)).await;
    assert_eq!(usage(&store, &ada).await, (2, 1000, 0));
}

async fn one_of_concurrent_uploads_gets_the_last_place(store: Arc<dyn Store>) {
    let (ada, bob) = (user(), user());
    for _ in 0..2 {
        added(&store, sized(&ada, 10)).await;
    }
    added(&store, sized(&bob, 400)).await;
    let by_number = (0..50).map(|_| store.add(sized(&ada, 1)));
    let by_bytes = (0..50).map(|_| store.add(sized(&bob, 500)));
    let (by_number, by_bytes) = tokio::join!(join_all(by_number), join_all(by_bytes));
    for outcomes in [by_number, by_bytes] {
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|error| error.code == Code::TooLarge));
    }
    assert_eq!((usage(&store, &ada).await, usage(&store, &bob).await), ((3, 21, 0), (2, 900, 0)));
    // The first uploads of a user are judged one after the other, too.
    let cleo = user();
    let outcomes = join_all((0..20).map(|_| store.add(sized(&cleo, 400)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "{outcomes:?}");
}

async fn repeats_are_answered_at_the_quota(store: Arc<dyn Store>) {
    let (ada, room) = (user(), Uuid::now_v7());
    let is_repeat = async |room: Option<Uuid>, client_message_id: &str| {
        let client_message_id = client_message_id.into();
        store.first(Upload { uploader: ada.id, room, client_message_id }).await.unwrap().is_some()
    };
    assert!(!is_repeat(None, "1").await);
    let first = added(&store, named(sized(&ada, 500), "1")).await;
    let shared = added(&store, named(File { size: 500, ..pending(&ada, room) }, "1")).await;
    assert_eq!(store.add(named(sized(&ada, 500), "1")).await.unwrap(), first);
    let repeats = (0..10).map(|_| store.add(named(File { size: 500, ..pending(&ada, room) }, "1")));
    assert!(join_all(repeats).await.into_iter().all(|repeat| repeat.unwrap() == shared));
    assert_eq!(store.add(named(sized(&ada, 500), "2")).await.unwrap_err().code, Code::TooLarge);
    assert!(is_repeat(None, "1").await && is_repeat(Some(room), "1").await);
    assert!(!is_repeat(None, "2").await && !is_repeat(Some(Uuid::now_v7()), "1").await);
    assert_eq!(usage(&store, &ada).await, (2, 1000, 2));
}

async fn concurrent_deletions_of_many_users_do_not_wait_for_each_other(store: Arc<dyn Store>) {
    let users = (0..10).map(|_| user()).collect::<Vec<_>>();
    let rooms = [Uuid::now_v7(), Uuid::now_v7()];
    // In each room, the files of the users are in another order.
    for user in &users {
        added(&store, File { size: 1, ..pending(user, rooms[0]) }).await;
    }
    for user in users.iter().rev() {
        added(&store, File { size: 1, ..pending(user, rooms[1]) }).await;
    }
    let uploads = join_all(users.iter().map(|user| store.add(sized(user, 1))));
    let (first, second, uploads) = tokio::join!(store.empty(rooms[0], 100), store.empty(rooms[1], 100), uploads);
    assert_eq!((first.unwrap(), second.unwrap()), (10, 10));
    assert!(uploads.into_iter().all(|upload| upload.is_ok()));
    for user in &users {
        assert_eq!(usage(&store, user).await, (1, 1, 0));
    }
}

/// The statement with which the release before adds a file.
fn insertion(file: &File, id: impl Fn(Uuid) -> String, bytes: &str) -> String {
    let File { id: file_id, size, uploader, client_message_id, .. } = file;
    let client_message_id = client_message_id.as_ref().map_or("NULL".into(), |chosen| format!("'{chosen}'"));
    let (file_id, uploader_id, no_room) = (id(*file_id), id(uploader.id), id(Uuid::nil()));
    format!(
        "INSERT INTO files (id, name, size, content_type, sha256, safe_inline, uploader_id, uploader_name,
            created_at_ms, link_key, room_id, client_message_id, event_id, ready, upload_room)
        VALUES ({file_id}, 'x', {size}, 'text/plain', '', false, {uploader_id}, 'ada', 1000, {bytes}, NULL,
            {client_message_id}, NULL, true, {no_room})
        ON CONFLICT (uploader_id, upload_room, client_message_id) DO NOTHING"
    )
}

fn on_sqlite(file: &File) -> String {
    insertion(file, |id| format!("X'{}'", id.simple()), "zeroblob(32)")
}

fn on_postgres(file: &File) -> String {
    insertion(file, |id| format!("'{id}'"), "decode(repeat('00', 32), 'hex')")
}

#[tokio::test]
async fn files_of_the_release_before_count_on_sqlite() {
    let path = testing::directory().join("file.db");
    let mut before = rusqlite::Connection::open(&path).unwrap();
    in_a_file::migrations::runner().set_target(BEFORE).run(&mut before).unwrap();
    let ada = user();
    let files = [sized(&ada, 100), named(sized(&ada, 20), "1"), sized(&ada, 3)];
    for file in &files[..2] {
        before.execute_batch(&on_sqlite(file)).unwrap();
    }
    drop(before);

    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap().with_quota(QUOTA));
    assert_eq!(usage(&store, &ada).await, (2, 120, 1));
    // After a rollback, the release before runs on this schema.
    let before = rusqlite::Connection::open(&path).unwrap();
    before.execute_batch(&on_sqlite(&files[2])).unwrap();
    before.execute_batch(&on_sqlite(&named(sized(&ada, 20), "1"))).unwrap();
    assert_eq!(usage(&store, &ada).await, (3, 123, 1));
    before.execute_batch(&format!("DELETE FROM files WHERE id = X'{}'", files[0].id.simple())).unwrap();
    assert_eq!(usage(&store, &ada).await, (2, 23, 1));
}

async fn client(url: &Secret) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS file; SET search_path TO file").await.unwrap();
    client
}

#[tokio::test]
async fn files_of_the_release_before_count_on_postgres() {
    let url = testing::database().await;
    let mut before = client(&url).await;
    on_the_server::migrations::runner().set_target(BEFORE).run_async(&mut before).await.unwrap();
    let ada = user();
    let files = [sized(&ada, 100), named(sized(&ada, 20), "1"), sized(&ada, 3)];
    for file in &files[..2] {
        before.batch_execute(&on_postgres(file)).await.unwrap();
    }

    let store = PostgresStore::open(&url, &config()).await.unwrap().with_quota(QUOTA);
    let store = Arc::new(store) as Arc<dyn Store>;
    assert_eq!(usage(&store, &ada).await, (2, 120, 1));
    // Replicas of the release before run beside this one.
    before.batch_execute(&on_postgres(&files[2])).await.unwrap();
    before.batch_execute(&on_postgres(&named(sized(&ada, 20), "1"))).await.unwrap();
    assert_eq!(usage(&store, &ada).await, (3, 123, 1));
    before.batch_execute(&format!("DELETE FROM files WHERE id = '{}'", files[0].id)).await.unwrap();
    assert_eq!(usage(&store, &ada).await, (2, 23, 1));
}

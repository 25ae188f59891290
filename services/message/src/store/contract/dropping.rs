//! The files of deleted messages: which are dropped, and when.

use std::slice::from_ref;

use refinery::Target;

use super::changes::{append_one, appended, change};
use super::files::{file, shared};
use super::upgrading::without_changes;
use super::*;

on_both!(
    a_file_is_dropped_with_its_last_message,
    a_file_of_a_new_message_stays,
    files_are_judged_in_steps,
    what_was_shown_is_not_dropped,
    texts_that_look_like_files_are_no_files,
    files_of_existing_messages_are_noted,
);

impl Fixture {
    /// Returns the number of rows of a table.
    async fn rows(&self, table: &str) -> i64 {
        match self {
            Self::Postgres(url) => {
                let count = format!("SELECT count(*) FROM message.{table}");
                connect(url).await.query_one(&count, &[]).await.unwrap().get(0)
            }
            Self::Sqlite(path) => {
                let database = rusqlite::Connection::open(path).unwrap();
                database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
            }
        }
    }
}

/// Creates a message with attached files.
fn attaching(room: Uuid, files: &[File]) -> EventData {
    EventData { kind: Kind::Message, ..shared(room, files) }
}

async fn delete(store: &dyn Store, message: &Event) {
    appended(store, change(message, message.data.sender, Op::Delete)).await;
}

async fn judge(store: &dyn Store) -> Vec<RoomFile> {
    store.drops().judge_files(100).await.unwrap().to_drop
}

async fn a_file_is_dropped_with_its_last_message(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (room, neighbour) = (rooms.next().unwrap(), rooms.next().unwrap());
    let [both, alone] = ["both", "alone"].map(file);
    let attached = attaching(room, &[both.clone(), alone.clone()]);
    let batch = [
        attached.clone(),
        shared(room, from_ref(&both)),
        new_message(room, None, "no files"),
        attaching(neighbour, from_ref(&alone)),
    ];
    let messages = append_new(&*store, &batch).await;
    assert!(matches!(append_one(&*store, attached).await, Outcome::Repeated(_)));
    assert_eq!(fixture.rows("file_uses").await, 4);
    delete(&*store, &messages[2]).await;
    assert_eq!((fixture.rows("files_to_drop").await, judge(&*store).await), (0, Vec::new()));

    delete(&*store, &messages[0]).await;
    assert_eq!(fixture.rows("file_uses").await, 2);
    assert_eq!(store.erase_deleted(10, 10).await.unwrap(), Erased { events: 2, more: false });
    // The file stays in the queue until the file service has deleted it.
    for _ in 0..2 {
        assert_eq!(judge(&*store).await, [((1, room), alone.id)]);
        assert_eq!(fixture.rows("files_to_drop").await, 1);
    }
    store.drops().files_dropped(vec![((1, room), alone.id), ((1, neighbour), alone.id)]).await.unwrap();
    assert_eq!((fixture.rows("files_to_drop").await, judge(&*store).await), (0, Vec::new()));
    assert!(!history(&*store, neighbour).await[0].data.body.files[0].deleted, "another room has its own files");

    // Only the message that shared the file has it now. A second deletion changes nothing.
    for _ in 0..2 {
        append_one(&*store, change(&messages[1], messages[1].data.sender, Op::Delete)).await;
    }
    assert_eq!(judge(&*store).await, [((1, room), both.id)]);
    store.drops().files_dropped(vec![((1, room), both.id)]).await.unwrap();
    assert_eq!((fixture.rows("file_uses").await, fixture.rows("files_to_drop").await), (1, 0));
}

async fn a_file_of_a_new_message_stays(fixture: Fixture) {
    let store = fixture.open().await;
    let room = rooms_in(1).next().unwrap();
    let it = file("it");
    let first = append_new(&*store, &[attaching(room, from_ref(&it))]).await.remove(0);
    delete(&*store, &first).await;
    let second = append_new(&*store, &[attaching(room, from_ref(&it))]).await.remove(0);
    assert_eq!((judge(&*store).await, fixture.rows("files_to_drop").await), (Vec::new(), 0));
    assert!(!history(&*store, room).await[1].data.body.files[0].deleted);

    delete(&*store, &second).await;
    assert_eq!(judge(&*store).await, [((1, room), it.id)]);
    // The decision stands: a message from now on shows the file as deleted.
    let third = append_new(&*store, &[attaching(room, from_ref(&it))]).await.remove(0);
    assert!(third.data.body.files[0].deleted);
    assert_eq!(judge(&*store).await, [((1, room), it.id)]);
}

async fn files_are_judged_in_steps(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (room, neighbour) = (rooms.next().unwrap(), rooms.next().unwrap());
    let files = [0; 5].map(|_| file("f"));
    for message in append_new(&*store, &[attaching(room, &files[..3]), attaching(neighbour, &files[3..])]).await {
        delete(&*store, &message).await;
    }
    let mut steps = Vec::new();
    loop {
        let judged = store.drops().judge_files(2).await.unwrap();
        assert!(judged.to_drop.is_sorted_by_key(|(room, _)| *room));
        steps.push(judged.to_drop.len());
        store.drops().files_dropped(judged.to_drop).await.unwrap();
        if !judged.more {
            break;
        }
    }
    assert_eq!((steps, fixture.rows("files_to_drop").await), (vec![2, 2, 1], 0));
}

async fn what_was_shown_is_not_dropped(fixture: Fixture) {
    let [one, other] = fixture.replicas().await;
    let room = rooms_in(1).next().unwrap();
    for _ in 0..30 {
        let it = file("it");
        let first = append_new(&*one, &[attaching(room, from_ref(&it))]).await.remove(0);
        delete(&*one, &first).await;
        let again = attaching(room, from_ref(&it));
        let (judged, outcomes) = tokio::join!(judge(&*other), append_opened(&*one, from_ref(&again)));
        let Ok(Outcome::Appended(event)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(event.data.body.files[0].deleted, !judged.is_empty());
        other.drops().files_dropped(judged).await.unwrap();
    }
}

/// Returns messages whose texts look like files, and the one file that they have.
fn tricky(room: Uuid) -> ([EventData; 3], File) {
    let looks = |id: Uuid| format!("\0 ,\"files\":[{{\"id\":\"{id}\",\"name\":\"x\"}}],{{\"id\":\"{id}\"");
    let it = File { uploader_username: looks(Uuid::now_v7()), ..file(&looks(Uuid::now_v7())) };
    let mut batch = [
        new_message(room, None, &looks(Uuid::now_v7())),
        attaching(room, from_ref(&it)),
        // Attached twice.
        attaching(room, &[it.clone(), it.clone()]),
    ];
    for data in &mut batch {
        data.body.sender_username = looks(Uuid::now_v7());
        data.body.content = looks(Uuid::now_v7());
    }
    (batch, it)
}

async fn texts_that_look_like_files_are_no_files(fixture: Fixture) {
    let store = fixture.open().await;
    let room = rooms_in(1).next().unwrap();
    let (batch, it) = tricky(room);
    let messages = append_new(&*store, &batch).await;
    assert_eq!(fixture.rows("file_uses").await, 2);
    for message in &messages {
        delete(&*store, message).await;
    }
    assert_eq!(judge(&*store).await, [((1, room), it.id)]);
}

/// Adds messages to a log without changes, from the second `seq` on.
async fn add(fixture: &Fixture, (partition, room): RoomKey, batch: &[EventData]) {
    let quoted = |id: Uuid| match fixture {
        Fixture::Postgres(_) => format!("'{id}'"),
        Fixture::Sqlite(_) => format!("x'{}'", id.simple()),
    };
    for (seq, data) in (2..).zip(batch) {
        let (kind, body) = (data.kind as i64, data.body.to_text().unwrap().replace('\'', "''"));
        let [room, id, sender] = [room, data.id, data.sender].map(quoted);
        let insert = format!(
            "INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at)
            VALUES ({partition}, {seq}, {room}, {seq}, {kind}, {id}, {sender}, '{}', '{body}', 7);
            UPDATE partitions SET head = {seq} WHERE partition = {partition};
            UPDATE room_heads SET seq = {seq} WHERE room_id = {room}",
            data.client_id
        );
        fixture.execute(&insert).await;
    }
}

/// Migrates a log to the version before files were noted.
async fn migrate_before(fixture: &Fixture) {
    match fixture {
        Fixture::Postgres(url) => {
            let mut client = connect(url).await;
            client.batch_execute("SET search_path = message").await.unwrap();
            postgres::migrations::runner().set_target(Target::Version(9)).run_async(&mut client).await.unwrap();
        }
        Fixture::Sqlite(path) => {
            let mut database = rusqlite::Connection::open(path).unwrap();
            sqlite::migrations::runner().set_target(Target::Version(7)).run(&mut database).unwrap();
        }
    }
}

async fn files_of_existing_messages_are_noted(fixture: Fixture) {
    let key = without_changes(&fixture).await;
    let (batch, it) = tricky(key.1);
    let [kept, lost] = ["kept", "lost"].map(file);
    let system = EventData { kind: Kind::System, ..shared(key.1, from_ref(&lost)) };
    let rest = [shared(key.1, &[kept.clone(), it.clone()]), shared(key.1, &[kept, lost.clone()]), system];
    add(&fixture, key, &[&batch[..], &rest[..]].concat()).await;
    migrate_before(&fixture).await;
    // The sixth event was deleted, and is not erased yet.
    let deletion = "INSERT INTO message_state
            (partition, room_id, seq, revision, text_revision, deleted_at, deleted_by, deleted_by_name)
        SELECT partition, room_id, seq, 8, 8, 7, sender_id, 'ada' FROM events WHERE seq = 6";
    fixture.execute(deletion).await;
    let store = fixture.store().await;
    store.open_log(PARTITIONS).await.unwrap();
    assert_eq!((fixture.rows("file_uses").await, fixture.rows("files_to_drop").await), (4, 2));
    assert_eq!(judge(&*store).await, [(key, lost.id)]);
    store.finish_upgrade().await.unwrap();
    for message in history(&*store, key.1).await.into_iter().filter(|event| [3, 4, 5].contains(&event.seq)) {
        assert!(!judge(&*store).await.contains(&(key, it.id)));
        delete(&*store, &message).await;
    }
    assert!(judge(&*store).await.contains(&(key, it.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_of_the_release_before_notes_files() {
    let fixture = Fixture::postgres().await;
    let store = fixture.open().await;
    let room = rooms_in(1).next().unwrap();
    store.open_room((1, room), false, Vec::new()).await.unwrap();
    let Fixture::Postgres(url) = &fixture else { unreachable!() };
    let former = connect(url).await;
    former.batch_execute("SET search_path = message").await.unwrap();
    let it = file("it");
    let data = attaching(room, from_ref(&it));
    let append = "SELECT fresh FROM append_events(ARRAY[1], ARRAY[$1::uuid], ARRAY[1::smallint], ARRAY[$2::uuid],
        ARRAY[$3::uuid], ARRAY[$4::text], ARRAY[$5::text], ARRAY[false], 1::bigint, ARRAY[NULL::boolean], NULL::text)";
    let body = data.body.to_text().unwrap();
    let row = former.query_one(append, &[&room, &data.id, &data.sender, &data.client_id, &body]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(fixture.rows("file_uses").await, 1);
    delete(&*store, &history(&*store, room).await[0]).await;
    assert_eq!(judge(&*store).await, [((1, room), it.id)]);
}

/// Moves a log to another database.
async fn transfer(from: &Fixture, to: &Fixture) {
    use confab_common::config::Migrate;
    use confab_common::store::{StorageConfig, StoreUrl};
    let postgres = PostgresConfig { migrate: Migrate::Off, postgres_connections: 4, ..PostgresConfig::default() };
    let storage = StorageConfig { data_dir: PathBuf::new(), postgres };
    let [from, to] = [from, to].map(|fixture| match fixture {
        Fixture::Postgres(url) => StoreUrl::Postgres(url.clone()),
        Fixture::Sqlite(path) => StoreUrl::Sqlite(path.clone()),
    });
    // A SQLite file is unlocked after the last task of its store has ended.
    let mut source = loop {
        match tables::SCHEMA.lock(&from, &storage).await {
            Ok(source) => break source,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut target = tables::SCHEMA.lock_empty(&to, &storage).await.unwrap();
    for table in tables::SCHEMA.tables {
        let mut lines = Vec::new();
        source.dump(table, &mut lines).await.unwrap();
        target.load(table, &lines[..]).await.unwrap();
    }
    target.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_to_drop_are_transferred() {
    let room = rooms_in(1).next().unwrap();
    for (from, to) in
        [(Fixture::sqlite().await, Fixture::postgres().await), (Fixture::postgres().await, Fixture::sqlite().await)]
    {
        let store = from.open().await;
        let [erased, deleted, kept] = ["erased", "deleted", "kept"].map(file);
        let messages = append_new(
            &*store,
            &[
                attaching(room, &[erased.clone(), kept.clone()]),
                attaching(room, from_ref(&kept)),
                attaching(room, from_ref(&deleted)),
            ],
        )
        .await;
        delete(&*store, &messages[0]).await;
        store.erase_deleted(10, 10).await.unwrap();
        delete(&*store, &messages[2]).await;
        drop(store);
        transfer(&from, &to).await;
        let store = to.open().await;
        let mut expected = [erased.id, deleted.id].map(|id| ((1, room), id));
        expected.sort_unstable();
        assert_eq!(judge(&*store).await, expected);
        delete(&*store, &messages[1]).await;
        assert!(judge(&*store).await.contains(&((1, room), kept.id)));
    }
}

//! A log that the release before created, until the upgrade is finished.

use refinery::Target;

use super::changes::{append_one, change, edit};
use super::*;

on_both!(
    a_log_of_the_first_format_needs_no_opening,
    upgrade_is_finished_after_all_rooms_are_open,
    a_log_without_changes_goes_on,
);

async fn former(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.open().await;
    fixture.execute("UPDATE log SET format = 1").await;
    store
}

async fn a_log_of_the_first_format_needs_no_opening(fixture: Fixture) {
    let store = former(&fixture).await;
    assert_eq!(store.open_log(PARTITIONS).await.unwrap().format, 1);
    let room = Uuid::now_v7();
    let outcomes = append_opened(&*store, &[new_message(room, None, "x")]).await;
    assert!(matches!(&outcomes[0], Ok(Outcome::Appended(event)) if event.seq == 1));
    // The opening of a room with events adds its members and keeps its numbers.
    let (key, owner) = ((partition::of_room(room, PARTITIONS), room), Uuid::now_v7());
    store.open_room(key, true, vec![Member { user: owner, role: Role::Owner }]).await.unwrap();
    let (page, access) = store.list(key, Window::Latest, ALL, vec![owner].into()).await.unwrap();
    assert_eq!((page.head, access.readers), (1, vec![owner]));
}

async fn upgrade_is_finished_after_all_rooms_are_open(fixture: Fixture) {
    let store = former(&fixture).await;
    assert_eq!(store.finish_upgrade().await.unwrap_err().code, Code::Conflict);
    assert_eq!(store.format().await.unwrap(), 1);
    store.rooms_opened().await.unwrap();
    for _ in 0..2 {
        store.finish_upgrade().await.unwrap();
        assert_eq!(store.format().await.unwrap(), FORMAT);
    }
    let outcomes = append_opened(&*store, &[new_message(Uuid::now_v7(), None, "x")]).await;
    assert_eq!(outcomes[0].as_ref().unwrap(), &Outcome::Hidden);
}

/// The message of a log without changes, as the release before wrote it.
const CONTENT: &str = r#"{"sender_username":"ada","content":"old","files":[]}"#;
const MESSAGE_ID: &str = "0193a4c07d507cc398a52f6b8e1d0c99";

/// Creates a log of format 2, with one room and one message, by the migrations of the release before.
pub async fn without_changes(fixture: &Fixture) -> RoomKey {
    let room = rooms_in(1).next().unwrap();
    let (id, sender) = (room.simple(), room.simple());
    match fixture {
        Fixture::Postgres(url) => {
            let mut client = connect(url).await;
            client.batch_execute("CREATE SCHEMA message; SET search_path = message").await.unwrap();
            postgres::migrations::runner().set_target(Target::Version(8)).run_async(&mut client).await.unwrap();
            let fill = format!(
                "INSERT INTO log (epoch, fingerprint, partitions, format) VALUES ('{id}', '', {PARTITIONS}, 2);
                INSERT INTO partitions SELECT n, CASE n WHEN 1 THEN 1 ELSE 0 END FROM generate_series(0, {PARTITIONS} - 1) n;
                INSERT INTO room_heads (partition, room_id, seq, opened) VALUES (1, '{id}', 1, true);
                INSERT INTO events VALUES (1, 1, '{id}', 1, 1, '{MESSAGE_ID}', '{sender}', 'c:old', '{CONTENT}', 7)"
            );
            client.batch_execute(&fill).await.unwrap();
        }
        Fixture::Sqlite(path) => {
            let mut database = rusqlite::Connection::open(path).unwrap();
            sqlite::migrations::runner().set_target(Target::Version(6)).run(&mut database).unwrap();
            let partitions =
                (0..PARTITIONS).map(|n| format!("({n}, {})", u8::from(n == 1))).collect::<Vec<_>>().join(",");
            let fill = format!(
                "INSERT INTO log (one, epoch, fingerprint, partitions, format) VALUES (1, x'{id}', '', {PARTITIONS}, 2);
                INSERT INTO partitions VALUES {partitions};
                INSERT INTO room_heads (partition, room_id, seq, opened) VALUES (1, x'{id}', 1, 1);
                INSERT INTO events VALUES (1, 1, x'{id}', 1, 1, x'{MESSAGE_ID}', x'{sender}', 'c:old', '{CONTENT}', 7)"
            );
            database.execute_batch(&fill).unwrap();
        }
    }
    (1, room)
}

async fn a_log_without_changes_goes_on(fixture: Fixture) {
    let key = without_changes(&fixture).await;
    let store = fixture.store().await;
    assert_eq!(store.open_log(PARTITIONS).await.unwrap().format, 2);
    let message = history(&*store, key.1).await.remove(0);
    assert_eq!((message.seq, message.data.body.content.as_str(), &message.state), (1, "old", &None));
    let outcomes = append_opened(&*store, &[new_message(key.1, None, "new")]).await;
    assert!(matches!(&outcomes[0], Ok(Outcome::Appended(event)) if event.seq == 2));
    // The rooms of such a log are open.
    for _ in 0..2 {
        store.finish_upgrade().await.unwrap();
        assert_eq!(store.format().await.unwrap(), FORMAT);
    }
    let edited = append_one(&*store, edit(&message, "better")).await;
    assert!(matches!(edited, Outcome::Appended(event) if event.seq == 3));
    let message = history(&*store, key.1).await.remove(0);
    assert_eq!(
        (message.data.body.content.as_str(), message.data.id.simple().to_string().as_str()),
        ("better", MESSAGE_ID)
    );
    assert!(matches!(append_one(&*store, change(&message, key.1, Op::Delete)).await, Outcome::Appended(_)));
    assert_eq!(store.erase_deleted(10, 10).await.unwrap(), Erased { events: 2, more: false });
}

/// The statement with which a replica of the release before appends to a log without changes.
const APPEND_WITHOUT_CHANGES: &str = "SELECT fresh, hidden, event_seq
    FROM append_events(ARRAY[1], ARRAY[$1::uuid], ARRAY[1::smallint], ARRAY[$2::uuid], ARRAY[$3::uuid], ARRAY['c:' || $2::text], ARRAY['{}'], ARRAY[false], 1::bigint, ARRAY[NULL::boolean], NULL::text)";

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_both_releases_append_to_a_log_without_changes() {
    let fixture = Fixture::postgres().await;
    let key = without_changes(&fixture).await;
    let Fixture::Postgres(url) = &fixture else { unreachable!() };
    let former = connect(url).await;
    former.batch_execute("SET search_path = message").await.unwrap();
    // The replica has prepared its statement before the migration.
    let statement = former.prepare(APPEND_WITHOUT_CHANGES).await.unwrap();
    let append = async || {
        let row = former.query_one(&statement, &[&key.1, &Uuid::now_v7(), &Uuid::now_v7()]).await.unwrap();
        assert!(row.get::<_, bool>(0) && !row.get::<_, bool>(1));
        row.get::<_, i64>(2)
    };
    assert_eq!(append().await, 2);
    let store = fixture.store().await;
    store.open_log(PARTITIONS).await.unwrap();
    for seq in [3, 5, 7] {
        assert_eq!(append().await, seq);
        let outcomes = append_opened(&*store, &[new_message(key.1, None, "new")]).await;
        assert!(matches!(&outcomes[0], Ok(Outcome::Appended(event)) if event.seq == seq as u64 + 1));
    }
    // Those of both releases are counted from the migration on.
    let heads = store.room_heads(vec![key]).await.unwrap().heads;
    assert_eq!((heads[0].seq, heads[0].messages), (8, 6));
}

/// The statement with which a replica of the release with format 1 appends.
const FORMER_APPEND: &str = "SELECT fresh, closed, event_seq
    FROM append_events(ARRAY[1], ARRAY[$1::uuid], ARRAY[1::smallint], ARRAY[$2::uuid], ARRAY[$3::uuid], ARRAY['c:' || $2::text], ARRAY['{}'], ARRAY[false], 1::bigint)";

#[tokio::test(flavor = "multi_thread")]
async fn replica_of_the_release_before_appends_until_the_upgrade_is_finished() {
    let fixture = Fixture::postgres().await;
    let store = former(&fixture).await;
    let Fixture::Postgres(url) = &fixture else { unreachable!() };
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path = message").await.unwrap();
    let append = async |room: Uuid, sender: Uuid| {
        let row = client.query_one(FORMER_APPEND, &[&room, &Uuid::now_v7(), &sender]).await?;
        Ok::<_, tokio_postgres::Error>((row.get::<_, bool>(0), row.get::<_, bool>(1)))
    };
    let mut rooms = rooms_in(1);
    let (public, private) = (rooms.next().unwrap(), rooms.next().unwrap());
    let owner = Uuid::now_v7();
    store.open_room((1, private), true, vec![Member { user: owner, role: Role::Owner }]).await.unwrap();
    assert_eq!(append(public, Uuid::now_v7()).await.unwrap(), (true, false));
    assert_eq!(append(private, owner).await.unwrap(), (true, false));
    assert_eq!(append(private, Uuid::now_v7()).await.unwrap(), (false, true));
    store.rooms_opened().await.unwrap();
    store.finish_upgrade().await.unwrap();
    assert!(append(public, owner).await.is_err());
}

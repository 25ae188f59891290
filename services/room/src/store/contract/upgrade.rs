//! The release before: its rooms get owners and openings, also those that it makes beside this release.

use confab_common::Secret;
use confab_common::pg::violates;
use refinery::Target;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::store::{postgres, sqlite};

/// The schema of the release before.
const BEFORE: Target = Target::Version(2);

/// The statements with which the release before creates a room.
fn creation(room: &Room, id: impl Fn(Uuid) -> String) -> [String; 2] {
    let Room { id: room_id, name, creator, created_at_ms, .. } = room;
    let (folded, search, owner) = (room.folded_name(), room.search(), &creator.username);
    let (room_id, owner_id) = (id(*room_id), id(creator.id));
    [
        format!("INSERT INTO room_ids (id) VALUES ({room_id}) ON CONFLICT (id) DO NOTHING"),
        format!(
            "INSERT INTO rooms (
                id, name, folded_name, description, search, owner_id, owner_name, created_at_ms, revision)
            VALUES ({room_id}, '{name}', '{folded}', '', '{search}', {owner_id}, '{owner}', {created_at_ms}, 0)"
        ),
    ]
}

/// Returns the statement with which the release before creates a room in Postgres.
fn creation_on_postgres(room: &Room) -> String {
    let [taken, created] = creation(room, |id| format!("'{id}'::uuid"));
    let created = created.replace("VALUES (", "SELECT ").replace(", 0)", ", 0 FROM fresh");
    format!("WITH fresh AS ({taken} RETURNING id) {created}")
}

fn on_sqlite(id: Uuid) -> String {
    format!("X'{}'", id.simple())
}

/// Checks a room that the release before has created.
async fn is_complete(store: &Arc<dyn Store>, room: &Room) {
    let owner = Member { user: room.creator.clone(), role: Role::Owner, joined_at_ms: room.created_at_ms };
    assert_eq!(store.members(room.id, MemberPosition::START, 10).await.unwrap(), [owner]);
    let members = vec![(room.creator.id, Role::Owner)];
    let opening = Opening { private: Some(false), members, more: false, epoch: None };
    assert_eq!(store.opening(room.id).await.unwrap(), Some(opening));
    let role = store.get(room.id, Some(room.creator.id)).await.unwrap().unwrap().role;
    assert_eq!((get(store, room.id).await, role), (Some(room.clone()), Some(Role::Owner)));
    assert!(!store.create(room.clone()).await.unwrap());
}

#[tokio::test]
async fn rooms_of_the_release_before_have_owners_on_sqlite() {
    let path = testing::directory().join("room.db");
    let mut before = rusqlite::Connection::open(&path).unwrap();
    sqlite::embedded::migrations::runner().set_target(BEFORE).run(&mut before).unwrap();
    let [tea, coffee, water] = ["Tea", "Coffee", "Water"].map(room);
    for room in [&tea, &coffee] {
        before.execute_batch(&creation(room, on_sqlite).join(";")).unwrap();
    }
    drop(before);

    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    is_complete(&store, &tea).await;
    assert_eq!(found(&store, "tea").await, ["Tea"], "the search index is still correct");
    // After a rollback, the release before runs on this schema.
    let before = rusqlite::Connection::open(&path).unwrap();
    before.execute_batch(&creation(&water, on_sqlite).join(";")).unwrap();
    is_complete(&store, &water).await;
    assert_eq!(before.execute(&creation(&room("TEA"), on_sqlite)[0], []).unwrap(), 1);
    assert!(before.execute(&creation(&room("TEA"), on_sqlite)[1], []).is_err(), "the name is taken");
    let deletion = format!("DELETE FROM rooms WHERE id = {} AND revision = 0", on_sqlite(coffee.id));
    assert_eq!(before.execute(&deletion, []).unwrap(), 1);
    is_deleted(&store, &coffee).await;
    assert_eq!(found(&store, "e").await, ["Water", "Tea"]);
}

async fn is_deleted(store: &Arc<dyn Store>, room: &Room) {
    assert_eq!(store.members(room.id, MemberPosition::START, 10).await.unwrap(), []);
    assert_eq!(
        store.opening(room.id).await.unwrap(),
        Some(Opening { private: None, members: Vec::new(), more: false, epoch: None })
    );
}

async fn client(url: &Secret) -> Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS room; SET search_path TO room").await.unwrap();
    client
}

#[tokio::test]
async fn rooms_of_the_release_before_have_owners_on_postgres() {
    let url = testing::database().await;
    let mut before = client(&url).await;
    postgres::embedded::migrations::runner().set_target(BEFORE).run_async(&mut before).await.unwrap();
    let [tea, coffee, water] = ["Tea", "Coffee", "Water"].map(room);
    for room in [&tea, &coffee] {
        before.batch_execute(&creation_on_postgres(room)).await.unwrap();
    }

    let store = Arc::new(PostgresStore::open(&url, &config()).await.unwrap()) as Arc<dyn Store>;
    is_complete(&store, &tea).await;
    // Replicas of the release before run beside this one.
    before.batch_execute(&creation_on_postgres(&water)).await.unwrap();
    is_complete(&store, &water).await;
    let taken = before.batch_execute(&creation_on_postgres(&room("TEA"))).await.unwrap_err();
    assert!(violates(&taken, "rooms_name"), "{taken:?}");
    let deletion = format!("DELETE FROM rooms WHERE id = '{}' AND revision = 0", coffee.id);
    assert_eq!(before.execute(&deletion, &[]).await.unwrap(), 1);
    is_deleted(&store, &coffee).await;
}

/// A service's role may use the tables, but owns nothing.
#[tokio::test]
async fn triggers_need_no_rights_beyond_the_tables() {
    let url = testing::database().await;
    drop(PostgresStore::open(&url, &config()).await.unwrap());
    let owner = client(&url).await;
    let role = format!("room_{}", Uuid::now_v7().simple());
    let rights = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA room TO {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA room TO {role};
        SET ROLE {role}; SET search_path TO ''"
    );
    owner.batch_execute(&rights).await.unwrap();
    let tea = room("Tea");
    let creation = creation_on_postgres(&tea).replace("INTO room", "INTO room.room");
    owner.batch_execute(&creation).await.unwrap();
    let count = async |table: &str| {
        owner.query_one(&format!("SELECT count(*) FROM room.{table}"), &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!((count("members").await, count("openings").await), (1, 1));
    owner.execute("DELETE FROM room.rooms", &[]).await.unwrap();
    assert_eq!((count("members").await, count("openings").await), (0, 1));
    owner.batch_execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

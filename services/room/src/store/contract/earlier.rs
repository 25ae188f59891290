//! Rooms of an earlier release, which compared and searched names in lower case.

use confab_common::Secret;
use confab_common::store::StoreUrl;

use super::*;
use crate::refold::refold;

mod on_sqlite {
    #[tokio::test]
    async fn rooms_of_an_earlier_release_are_found() {
        let url = super::StoreUrl::Sqlite(super::testing::directory().join("room.db"));
        super::rooms_of_an_earlier_release_are_found(url).await;
    }
}

mod on_postgres {
    #[tokio::test]
    async fn rooms_of_an_earlier_release_are_found() {
        super::rooms_of_an_earlier_release_are_found(super::StoreUrl::Postgres(super::testing::database().await)).await;
    }
}

async fn open(url: &StoreUrl) -> Arc<dyn Store> {
    match url {
        StoreUrl::Sqlite(path) => Arc::new(SqliteStore::open(path).unwrap()),
        StoreUrl::Postgres(url) => Arc::new(PostgresStore::open(url, &config()).await.unwrap()),
    }
}

/// Gives a room the forms of an earlier release.
async fn set(url: &StoreUrl, name: &str, lower: &str) {
    let update = format!("UPDATE rooms SET folded_name = '{lower}', search = '{lower}\u{1f}' WHERE name = '{name}'");
    match url {
        StoreUrl::Sqlite(path) => {
            assert_eq!(rusqlite::Connection::open(path).unwrap().execute(&update, []).unwrap(), 1)
        }
        StoreUrl::Postgres(url) => execute(url, &update).await,
    }
}

async fn execute(url: &Secret, update: &str) {
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path TO room").await.unwrap();
    assert_eq!(client.execute(update, &[]).await.unwrap(), 1);
}

async fn rooms_of_an_earlier_release_are_found(url: StoreUrl) {
    let store = open(&url).await;
    let [cup, street, other, plain] = [
        made(&store, "ΜΑΡΙΟΣ").await,
        made(&store, "Große Straße").await,
        made(&store, "Fuß").await,
        made(&store, "plain").await,
    ];
    set(&url, "ΜΑΡΙΟΣ", "μαριος").await;
    set(&url, "Große Straße", "große straße").await;
    set(&url, "Fuß", "fuß").await;
    // The earlier release allowed both names.
    let twin = made(&store, "FUSS").await;
    assert_eq!(found(&store, "strasse").await, Vec::<String>::new());

    for _ in 0..2 {
        refold(store.as_ref()).await.unwrap();
        assert_eq!(found(&store, "STRASSE").await, ["Große Straße"]);
        assert_eq!(found(&store, "μαριος").await, ["ΜΑΡΙΟΣ"]);
        assert_eq!(found(&store, "fuß").await.len(), 2);
    }
    for taken in ["GROSSE STRASSE", "große straße", "μαριος", "fuss"] {
        assert_eq!(store.create(room(taken)).await.unwrap_err().code, Code::RoomNameTaken, "{taken}");
    }
    let stored = store.beyond_ascii(Uuid::nil(), 10).await.unwrap();
    assert_eq!(
        stored.iter().map(|stored| stored.room.id).collect::<Vec<_>>(),
        [cup.id, street.id, other.id],
        "not {}",
        plain.id
    );
    assert_eq!(stored[2].folded_name, "fuß", "the other room has the current form");
    assert_eq!(store.beyond_ascii(cup.id, 1).await.unwrap(), stored[1..2]);

    // Both rooms remain usable; only their names cannot be changed.
    for room in [&other, &twin] {
        let (mut changed, event) = change(room, &room.name);
        changed.description = "two alike".into();
        assert!(store.update(changed.clone(), event).await.unwrap());
        assert_eq!(get(&store, room.id).await, Some(changed));
    }
    // A room that has changed meanwhile is not rewritten.
    store.refold(Room { name: "stale".into(), ..other }).await.unwrap();
    assert_eq!(found(&store, "stale").await, Vec::<String>::new());
}

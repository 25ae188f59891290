use confab_common::grpc::late;
use confab_common::pg::PostgresConfig;
use confab_common::testing;
use futures::poll;

use super::*;
use crate::log::Log;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;

async fn stores() -> [Arc<dyn Store>; 2] {
    let config = PostgresConfig { postgres_connections: 8, ..PostgresConfig::default() };
    [
        Arc::new(SqliteStore::open(&testing::directory().join("room.db")).unwrap()),
        Arc::new(PostgresStore::open(&testing::database().await, &config).await.unwrap()),
    ]
}

#[tokio::test]
async fn waiting_searches_do_not_delay_other_calls() {
    for store in stores().await {
        let relay = Arc::new(Relay::new(store.clone(), Log::new(late().0)));
        let rooms = Rooms::new(store.clone(), relay);
        let ada = User { id: Uuid::now_v7(), username: "ada".into() };
        let (name, creator) = ("Tea".into(), ada.clone());
        let (id, description) = (Uuid::now_v7(), String::new());
        let room = Room { id, name, description, creator, created_at_ms: 1000, revision: 0, private: false };
        assert!(store.create(room.clone()).await.unwrap());
        let tea = Seen { room, role: Some(Role::Owner) };
        let running = [rooms.turns.take(Some(Uuid::now_v7())).await.unwrap(), rooms.turns.take(None).await.unwrap()];

        let mut search = Box::pin(rooms.list(Some(ada.id), 50, "", "TEA"));
        assert!(poll!(&mut search).is_pending());
        assert_eq!(rooms.get(id, Viewer::User(ada.id)).await.unwrap(), tea);
        assert!(rooms.access(id, Viewer::User(ada.id)).await.unwrap().may_manage);
        assert_eq!(rooms.list(Some(ada.id), 50, "", "").await.unwrap().rooms, std::slice::from_ref(&tea));
        assert!(poll!(&mut search).is_pending());
        drop(running);
        assert_eq!(search.await.unwrap().rooms, [tea]);
    }
}

#[tokio::test]
async fn turn_lasts_until_the_search_ends_even_without_caller() {
    for store in stores().await {
        let relay = Arc::new(Relay::new(store.clone(), Log::new(late().0)));
        let rooms = Rooms::new(store, relay);
        let ada = Some(Uuid::now_v7());
        let mut left = Box::pin(rooms.list(ada, 50, "", "tea"));
        assert!(poll!(&mut left).is_pending());
        drop(left);
        let mut next = Box::pin(rooms.turns.take(ada));
        assert!(poll!(&mut next).is_pending());
        assert!(next.await.is_ok());
    }
}

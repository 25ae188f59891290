//! A database on which the previous version works, before and beside this one.

use super::*;

contract!(
    accounts_and_revocations_of_the_previous_version_are_read,
    a_logout_on_a_replica_of_the_previous_version_ends_the_session,
    the_previous_version_reads_entries_about_users,
    a_user_deleted_by_the_previous_version_is_deleted,
);

/// Runs a statement of the previous version. `id` writes a UUID as a literal of that database.
pub(super) async fn run(url: &StoreUrl, statement: impl Fn(fn(Uuid) -> String) -> String) {
    match url {
        StoreUrl::Sqlite(path) => {
            let statement = statement(|id| format!("x'{}'", id.as_simple()));
            assert_eq!(rusqlite::Connection::open(path).unwrap().execute(&statement, []).unwrap(), 1);
        }
        StoreUrl::Postgres(url) => {
            let client = connect(url).await;
            let statement = statement(|id| format!("'{id}'"));
            assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1);
        }
    }
}

pub(super) async fn connect(url: &confab_common::Secret) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path TO auth").await.unwrap();
    client
}

/// Logs out as the previous version does: it inserts the row, and does not have sessions.
async fn log_out(url: &StoreUrl, number: u64, session_id: Uuid, user_id: Uuid) {
    run(url, |_| format!("UPDATE revocation_head SET number = {number}")).await;
    run(url, |id| {
        format!(
            "INSERT INTO revocations (number, session_id, user_id, expires_at_ms) VALUES ({number}, {}, {}, 5000)",
            id(session_id),
            id(user_id)
        )
    })
    .await;
}

async fn accounts_and_revocations_of_the_previous_version_are_read(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, legacy) = (account("ada"), Uuid::now_v7());
    run(&url, |id| {
        format!(
            "INSERT INTO users (id, username, username_folded, password_hash, created_at_ms, username_skeleton)
             VALUES ({}, 'ada', 'ada', '{}', {}, 'ada')",
            id(ada.id),
            ada.password_hash,
            ada.created_at_ms
        )
    })
    .await;
    log_out(&url, 1, legacy, ada.id).await;
    assert_eq!(store.user(ada.id).await.unwrap(), Some(ada.clone()));
    let items = vec![Revocation { number: 1, scope: Scope::Session(legacy), expires_at_ms: 5000 }];
    assert_eq!(store.revocations(0, 10).await.unwrap(), Revocations { items, head: 1 });
    // A token of the previous version has no stored session. Logout revokes it, and a cut ends it by its time of issue.
    assert_eq!(store.end_session(ada.id, Uuid::now_v7(), 0).await.unwrap(), None);
    assert_eq!(store.revoke(Uuid::now_v7(), ada.id, 5000).await.unwrap().number, 2);
    let ended = store.end_sessions(ada.id, cut(None), None).await.unwrap().unwrap();
    assert_eq!(ended.len(), 1);
    open_at(&store, &ada, 1000).await;
    store
        .delete_user(Deletion { id: ada.id, password_hash: "none".into(), now_ms: 0, free_name_at_ms: 1, entry: None })
        .await
        .unwrap();
}

async fn a_logout_on_a_replica_of_the_previous_version_ends_the_session(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let (first, second) = (open_at(&store, &ada, 1000).await, open_at(&store, &ada, 1001).await);
    log_out(&url, 1, first, ada.id).await;
    assert_eq!(session_ids(&store, &ada, 0).await, [second]);
    // Also after the revocation is purged.
    assert_eq!(store.purge(i64::MAX, 10).await.unwrap(), 1);
    assert_eq!(session_ids(&store, &ada, 0).await, [second]);
}

async fn the_previous_version_reads_entries_about_users(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    store.end_sessions(ada.id, cut(None), None).await.unwrap();
    store.suspend(ada.id, None).await.unwrap();
    const SQL: &str = "SELECT session_id FROM revocations WHERE number > 0 ORDER BY number";
    // The previous version requires a value, and would take it for the id of a session.
    let ids = match &url {
        StoreUrl::Sqlite(path) => {
            let database = rusqlite::Connection::open(path).unwrap();
            let mut statement = database.prepare(SQL).unwrap();
            let ids = statement.query_map([], |row| Ok(Uuid::from_bytes(row.get(0)?))).unwrap();
            ids.collect::<rusqlite::Result<Vec<_>>>().unwrap()
        }
        StoreUrl::Postgres(url) => {
            connect(url).await.query(SQL, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        }
    };
    assert_eq!(ids.iter().map(Uuid::get_version_num).collect::<Vec<_>>(), [8, 8]);
}

async fn a_user_deleted_by_the_previous_version_is_deleted(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    store.suspend(ada.id, None).await.unwrap();
    let blocked = async || store.revocations(0, 10).await.unwrap().items[0].scope;
    assert_eq!(blocked().await, Scope::Blocked { user_id: ada.id, deleted: false });
    run(&url, |id| format!("UPDATE users SET state = 2 WHERE id = {}", id(ada.id))).await;
    assert_eq!(blocked().await, Scope::Blocked { user_id: ada.id, deleted: true });
}

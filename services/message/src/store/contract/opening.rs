//! The log's identity: its epoch and its number of partitions.

use super::*;

on_both!(epoch_belongs_to_the_database, number_of_partitions_is_fixed, operator_can_renew_the_epoch);

async fn epoch_belongs_to_the_database(fixture: Fixture) {
    let store = fixture.store().await;
    let epoch = store.open_log(PARTITIONS).await.unwrap().epoch;
    let room = Uuid::now_v7();
    append_new(&*store, &[new_message(room, None, "kept")]).await;
    drop(store);

    let store = reopen(&fixture).await;
    assert_eq!(store.open_log(PARTITIONS).await.unwrap().epoch, epoch);
    assert_eq!(epochs(&*store).await, [epoch; 6]);
    drop(store);

    fixture.execute("UPDATE log SET fingerprint = 'another database'").await;
    let store = reopen(&fixture).await;
    let renewed = store.open_log(PARTITIONS).await.unwrap().epoch;
    assert!(renewed > epoch);
    assert_eq!(epochs(&*store).await, [renewed; 6]);
    assert_eq!(store.open_log(PARTITIONS).await.unwrap().epoch, renewed);
    assert_eq!(history(&*store, room).await.len(), 1);
}

/// Opens a database whose last user is about to release it.
async fn reopen(fixture: &Fixture) -> Arc<dyn Store> {
    if let Fixture::Sqlite(path) = fixture {
        while Sqlite::open(path).is_err() {
            tokio::task::yield_now().await;
        }
    }
    fixture.store().await
}

/// Returns the epoch in the answer of each kind of call.
async fn epochs(store: &dyn Store) -> [Uuid; 6] {
    let room = Uuid::now_v7();
    let key = (partition::of_room(room, PARTITIONS), room);
    [
        store.append(&[Arc::new(new_message(room, None, "x"))], 1).await.unwrap().epoch,
        list(store, key, Window::Latest, ALL).await.epoch,
        store.read_log(0, 0, ALL).await.unwrap().epoch,
        store.find(&new_message(room, None, "x")).await.unwrap().0,
        store.heads().await.unwrap().epoch,
        store.room_heads(vec![key]).await.unwrap().epoch,
    ]
}

async fn number_of_partitions_is_fixed(fixture: Fixture) {
    let store = fixture.open().await;
    let error = store.open_log(PARTITIONS * 2).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.detail.contains("4 partitions") && error.detail.contains("is 8"), "{error}");
    assert_eq!(store.heads().await.unwrap().heads.len(), PARTITIONS as usize);
}

async fn operator_can_renew_the_epoch(fixture: Fixture) {
    let store = fixture.store().await;
    assert_eq!(store.renew_epoch().await.unwrap_err().code, Code::NotFound);
    let epoch = store.open_log(PARTITIONS).await.unwrap().epoch;
    let renewed = store.renew_epoch().await.unwrap();
    assert!(renewed > epoch);
    assert_eq!(epochs(&*store).await, [renewed; 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_open_together_agree() {
    let fixture = Fixture::postgres().await;
    let (one, two, three) = tokio::join!(fixture.store(), fixture.store(), fixture.store());
    let (one, two, three) =
        tokio::join!(one.open_log(PARTITIONS), two.open_log(PARTITIONS), three.open_log(PARTITIONS));
    let epoch = one.unwrap();
    assert_eq!([two.unwrap(), three.unwrap()], [epoch; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_database_is_detected() {
    let fixture = Fixture::postgres().await;
    let store = fixture.open().await;
    assert!(store.is_as_opened().await.unwrap());
    fixture.execute("UPDATE log SET fingerprint = 'another database'").await;
    assert!(!store.is_as_opened().await.unwrap());
    let epoch = store.heads().await.unwrap().epoch;
    assert!(store.open_log(PARTITIONS).await.unwrap().epoch > epoch);
    assert!(store.is_as_opened().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_snapshot_does_not_block_appends() {
    let fixture = Fixture::postgres().await;
    let store = fixture.open().await;
    let Fixture::Postgres(url) = &fixture else { unreachable!() };
    let (mut client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Like a dump: while it is open, no dead version of a head can be vacuumed.
    let dump = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await
        .unwrap();
    dump.query("SELECT count(*) FROM message.partitions", &[]).await.unwrap();
    let room = rooms_in(1).next().unwrap();
    for seq in 1..=1000 {
        assert_eq!(append_new(&*store, &[new_message(room, None, "x")]).await[0].seq, seq);
    }
    dump.rollback().await.unwrap();
}

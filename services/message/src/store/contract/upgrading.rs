//! A log that the release before created, until the upgrade is finished.

use super::*;

on_both!(a_log_of_the_former_format_needs_no_opening, upgrade_is_finished_after_all_rooms_are_open);

async fn former(fixture: &Fixture) -> Arc<dyn Store> {
    let store = fixture.open().await;
    fixture.execute("UPDATE log SET format = 1").await;
    store
}

async fn a_log_of_the_former_format_needs_no_opening(fixture: Fixture) {
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

/// The statement with which a replica of the release before appends.
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

//! Independent of the amount of data and the planner's estimates, a statement reads only the rows that it needs and few
//! others.

use confab_common::testing;
use tokio_postgres::NoTls;

use super::*;
use crate::store::{Change, Op};

/// Fewer events and states than this count as few; rows of rolled-back work are read as well.
const LITTLE: i64 = 150;

fn one(n: i64) -> Arc<EventData> {
    let body = Body { sender_username: "ada".into(), content: "x".into(), ..Body::default() };
    let (room, sender, client_id) = (Uuid::from_u128(1), Uuid::from_u128(2), format!("message {n}"));
    Arc::new(EventData {
        partition: 1,
        room,
        id: Uuid::now_v7(),
        kind: Kind::Message,
        sender,
        client_id,
        body,
        change: None,
        closes_room: false,
    })
}

/// Returns how many events and states the work reads; the work is rolled back.
async fn reads(store: &Postgres, work: impl AsyncFnOnce(&pg::Client) -> Result<()>) -> i64 {
    let counted = store.0.run(async |client| {
        // Counts since the session last reported its statistics, which it does not do inside a transaction.
        let so_far =
            "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
            WHERE relid IN ('events'::regclass, 'message_state'::regclass, 'message_edits'::regclass, 'change_runs'::regclass)";
        client.batch_execute("BEGIN").await?;
        let before = client.query_one(so_far, &[]).await?.get::<_, i64>(0);
        work(client).await?;
        let after = client.query_one(so_far, &[]).await?.get::<_, i64>(0);
        client.batch_execute("ROLLBACK").await?;
        Ok::<_, Error>(after - before)
    });
    counted.await.unwrap()
}

/// Checks each statement in a room in which one sender has posted `said` messages, and has edited half of them.
async fn every_statement_reads_few_rows(store: &Postgres, said: i64, when: &str) {
    let (room, half, ten, bytes) = (Uuid::from_u128(1), said / 2, 10_i64, i64::MAX);
    let appends = async |client: &pg::Client| {
        let batch = [one(said + 1), one(1), one(said + 2)];
        let appended = append(client, &batch, 1).await.map_err(|error| Error::internal(format_args!("{error:?}")))?;
        assert!(matches!(appended.outcomes[..], [Outcome::Appended(_), Outcome::Repeated(_), Outcome::Appended(_)]));
        Ok(())
    };
    let edits = async |client: &pg::Client| {
        let edit = |n: i64| {
            let mut data = EventData::clone(&one(-n));
            data.body.content = "edited again".into();
            (data.kind, data.change) = (Kind::Change, Some(Change::new(n as u64, Op::Edit)));
            Arc::new(data)
        };
        let appended = append(client, &[edit(half), edit(1)], 1).await;
        let appended = appended.map_err(|error| Error::internal(format_args!("{error:?}")))?;
        assert!(matches!(appended.outcomes[..], [Outcome::Appended(_), Outcome::Appended(_)]), "{appended:?}");
        Ok(())
    };
    let finds = async |client: &pg::Client| {
        for (n, there) in [(half, true), (said + 1, false)] {
            let data = one(n);
            let keys: [&(dyn ToSql + Sync); 4] = [&1, &data.room, &data.sender, &data.client_id];
            let found = read(client, &FIND, &keys, 1).await?.page.events;
            assert_eq!(found.len(), usize::from(there), "{n}");
        }
        Ok(())
    };
    let (anonymous, readers) = (Readers::Users(Vec::new()), Vec::<Uuid>::new());
    let [newest, oldest, events] =
        [&LIST_NEWEST_FIRST, &LIST_OLDEST_FIRST, &pages::EVENTS_OLDEST_FIRST].map(|reads| reads.of(&anonymous));
    let caught_up = changes::CATCH_UP.of(&anonymous);
    let pages = async |client: &pg::Client| {
        let after_half: [&(dyn ToSql + Sync); 7] = [&1, &half, &ten, &bytes, &room, &i64::MAX, &readers];
        let pages = [
            read(client, newest, &[&1, &0_i64, &ten, &bytes, &room, &i64::MAX, &readers], 1).await?,
            read(client, oldest, &after_half, 1).await?,
            read(client, events, &after_half, 1).await?,
            read(client, &READ_LOG, &[&1, &half, &ten, &bytes], 1).await?,
            read(client, caught_up, &[&1, &half, &ten, &bytes, &room, &i64::MAX, &readers, &(half - 10)], 1).await?,
        ];
        assert!(pages.iter().all(|read| read.page.events.len() == 10));
        Ok(())
    };
    let [changed, pinned, versions] =
        [&changes::CHANGES, &changes::PINS, &changes::VERSIONS].map(|reads| reads.of(&anonymous));
    let states = async |client: &pg::Client| {
        let (after, from) = (said - 40, said - 20);
        let by_seq: [&(dyn ToSql + Sync); 8] = [&1, &after, &ten, &bytes, &room, &i64::MAX, &readers, &from];
        let by_revision: [&(dyn ToSql + Sync); 8] =
            [&1, &(said - 20), &ten, &bytes, &room, &i64::MAX, &readers, &after];
        for parameters in [by_seq, by_revision] {
            assert_eq!(read(client, changed, &parameters, 1).await?.changed.messages.len(), 10);
        }
        let parameters: [&(dyn ToSql + Sync); 7] = [&1, &0_i64, &ten, &bytes, &room, &i64::MAX, &readers];
        assert_eq!(read(client, pinned, &parameters, 1).await?.page.events.len(), 2);
        let found = client.query(&pg::prepare(client, versions).await?, &[&1, &half, &room, &readers]).await?;
        assert_eq!(found.len(), 1);
        Ok(())
    };
    // Postgres first plans for the given values, later for any values.
    for _ in 0..7 {
        let reads = [
            reads(store, appends).await,
            reads(store, edits).await,
            reads(store, finds).await,
            reads(store, pages).await,
            reads(store, states).await,
        ];
        assert!(
            reads.iter().all(|read| *read < LITTLE),
            "{said}, {when}: appends, edits, finds, pages, states: {reads:?}"
        );
    }
}

#[tokio::test]
async fn no_statement_reads_a_whole_room() {
    let url = testing::database().await;
    let config = pg::PostgresConfig { postgres_connections: 1, ..pg::PostgresConfig::default() };
    Postgres::open(&url, &config).await.unwrap().open_log(4).await.unwrap();
    // A separate connection without the service's statement timeout.
    let (beside, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let fill = async |rows: &str| {
        let insert = format!(
            "INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at) {rows}"
        );
        beside.batch_execute(&insert).await.unwrap();
    };
    // Disables automatic ANALYZE.
    beside.batch_execute("SET search_path = message").await.unwrap();
    for table in ["events", "message_state"] {
        beside.batch_execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await.unwrap();
    }
    let body = one(0).body.to_text().unwrap();
    let (room, sender) = (Uuid::from_u128(1), Uuid::from_u128(2));
    // A session plans when it first needs a statement, and keeps the plan until the table is analysed.
    let (mut sessions, mut said) = (Vec::new(), 0);
    for many in [160, 2_000, 20_000] {
        fill(&format!(
            "SELECT 1, n, '{room}', n, 1, gen_random_uuid(), '{sender}', 'message ' || n, '{body}', 1 FROM generate_series({said} + 1, {many}) n"
        ))
        .await;
        said = many;
        beside.execute("UPDATE partitions SET head = $1 WHERE partition = 1", &[&said]).await.unwrap();
        let head = "INSERT INTO room_heads VALUES (1, $1, $2) ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq";
        beside.execute(head, &[&room, &said]).await.unwrap();
        let state = "INSERT INTO message_state (partition, room_id, seq, revision, text_revision, content, pinned)
            SELECT 1, $1, n, n, n, 'edited', CASE WHEN n IN (100, 140) THEN n END FROM generate_series(1, $2::bigint) n WHERE n % 2 = 0 ON CONFLICT DO NOTHING";
        beside.execute(state, &[&room, &said]).await.unwrap();
        sessions.push(Postgres::open(&url, &config).await.unwrap());
        for session in &sessions {
            every_statement_reads_few_rows(session, said, "not analyzed").await;
        }
    }
    let session = &sessions[0];
    beside.batch_execute("ANALYZE events, message_state").await.unwrap();
    every_statement_reads_few_rows(session, said, "analyzed").await;
    fill(&format!(
        "SELECT n % 4, -n, gen_random_uuid(), 1, 1, gen_random_uuid(), gen_random_uuid(), 'm' || n, '{body}', 1 FROM generate_series(1, 100000) n"
    ))
    .await;
    beside.batch_execute("ANALYZE events, message_state").await.unwrap();
    every_statement_reads_few_rows(session, said, "among many small rooms").await;
}

//! The contract of a store, tested on both implementations.

mod agreeing;
mod append;
mod changes;
mod data;
mod deleting;
mod dropping;
mod erasing;
mod files;
mod folding;
mod markers;
mod members;
mod opening;
mod privileges;
mod reacting;
mod reading;
mod reopening;
mod searching;
mod upgrading;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use confab_common::pg::PostgresConfig;
use confab_common::{Secret, testing};
use confab_proto::partition;
use tokio::time::Instant;
use uuid::Uuid;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::*;
use crate::batch;

const PARTITIONS: u32 = 4;

/// A database and how to open a store on it.
enum Fixture {
    Postgres(Secret),
    Sqlite(PathBuf),
}

impl Fixture {
    async fn postgres() -> Self {
        Self::Postgres(testing::database().await)
    }

    async fn sqlite() -> Self {
        Self::Sqlite(testing::directory().join("message.db"))
    }

    /// Returns a store that is not open yet.
    async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Postgres(url) => {
                let config = PostgresConfig { postgres_connections: 12, ..PostgresConfig::default() };
                Arc::new(Postgres::open(url, &config).await.unwrap())
            }
            Self::Sqlite(path) => Arc::new(Sqlite::open(path).unwrap()),
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        let store = self.store().await;
        store.open_log(PARTITIONS).await.unwrap();
        store
    }

    /// Returns two replicas of the service. SQLite allows only one, which stands for both.
    async fn replicas(&self) -> [Arc<dyn Store>; 2] {
        let first = self.open().await;
        match self {
            Self::Postgres(_) => [first, self.open().await],
            Self::Sqlite(_) => [first.clone(), first],
        }
    }

    /// Runs SQL over a separate connection.
    async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.unwrap();
    }

    /// Like [`Fixture::execute`]; returns the database's error message.
    async fn try_execute(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Postgres(url) => {
                let done = connect(url).await.batch_execute(&format!("SET search_path = message; {sql}")).await;
                done.map_err(|error| error.as_db_error().unwrap().message().to_owned())
            }
            Self::Sqlite(path) => {
                let done = rusqlite::Connection::open(path).unwrap().execute_batch(sql);
                done.map_err(|error| error.to_string())
            }
        }
    }
}

async fn connect(url: &Secret) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Runs each test on each store.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            use super::super::Fixture;
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(Fixture::postgres().await).await })+
        }
        mod on_sqlite {
            use super::super::Fixture;
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(Fixture::sqlite().await).await })+
        }
    };
}
use on_both;

/// Creates a message of a new sender.
fn new_message(room: Uuid, client_message_id: Option<&str>, content: &str) -> EventData {
    let id = Uuid::now_v7();
    EventData {
        partition: partition::of_room(room, PARTITIONS),
        room,
        id,
        kind: Kind::Message,
        sender: Uuid::now_v7(),
        client_id: client_id(client_message_id, id),
        body: Body { sender_username: "ada".into(), content: content.into(), ..Body::default() },
        change: None,
        closes_room: false,
    }
}

/// Yields rooms of this partition.
fn rooms_in(partition: u32) -> impl Iterator<Item = Uuid> {
    (0..)
        .map(|n: u128| Uuid::from_u128(0x0193_a4c0_7d50_7cc3_98a5 << 48 | n))
        .filter(move |room| partition::of_room(*room, PARTITIONS) == partition)
}

async fn append_once(store: &dyn Store, batch: &[EventData]) -> Vec<Result<Outcome>> {
    let batch: Vec<_> = batch.iter().cloned().map(Arc::new).collect();
    let answers = batch::append(store, &batch, Instant::now() + Duration::from_secs(20)).await;
    let locked = || Err(Error::unavailable("the log"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(locked).map(|(_, outcome)| outcome)).collect()
}

/// Opens the rooms of a batch, as the room service does before their first event.
async fn open_rooms(store: &dyn Store, batch: &[EventData]) {
    for data in batch {
        store.open_room((data.partition, data.room), false, Vec::new()).await.unwrap();
    }
}

/// Repeats an append that was rejected because of a locked head, as a gateway does.
async fn append(store: &dyn Store, batch: &[EventData]) -> Vec<Result<Outcome>> {
    open_rooms(store, batch).await;
    append_opened(store, batch).await
}

async fn append_opened(store: &dyn Store, batch: &[EventData]) -> Vec<Result<Outcome>> {
    let mut outcomes = append_once(store, batch).await;
    loop {
        let refused = |outcome: &Result<Outcome>| matches!(outcome, Err(error) if error.code == Code::Unavailable);
        let again: Vec<_> = (0..batch.len()).filter(|i| refused(&outcomes[*i])).collect();
        if again.is_empty() {
            return outcomes;
        }
        let batch: Vec<_> = again.iter().map(|i| batch[*i].clone()).collect();
        again.into_iter().zip(append_once(store, &batch).await).for_each(|(i, outcome)| outcomes[i] = outcome);
    }
}

async fn append_new(store: &dyn Store, batch: &[EventData]) -> Vec<Event> {
    let outcomes = append(store, batch).await;
    outcomes
        .into_iter()
        .map(|outcome| if let Ok(Outcome::Appended(event)) = outcome { event } else { panic!("{outcome:?}") })
        .collect()
}

const ALL: Limit = Limit { events: 100_000, bytes: u32::MAX };

async fn history(store: &dyn Store, room: Uuid) -> Vec<Event> {
    list(store, (partition::of_room(room, PARTITIONS), room), Window::After(0), ALL).await.events
}

/// Returns a page of a public room.
async fn list(store: &dyn Store, room: RoomKey, window: Window, limit: Limit) -> Page {
    store.list(room, window, limit, Vec::new().into()).await.unwrap().0
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

//! A schema with every kind of value is transferred between all kinds of stores. Needs the servers of `make test`.

use std::path::Path;

use confab_common::config::Migrate;
use confab_common::pg::PostgresConfig;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_common::testing;
use confab_common::transfer::{Kind, Schema, Table, contract};
use refinery::{Migration, Runner};

const THINGS: Table = Table::new(
    "things",
    2,
    &[
        ("part", Kind::Number),
        ("position", Kind::Number),
        ("id", Kind::Id),
        ("text", Kind::Text),
        ("bytes", Kind::Bytes),
        ("flag", Kind::Flag),
    ],
);

static WHOLE: Schema =
    Schema { name: "whole", tables: &[THINGS, HEAD], derived: &[], sqlite: on_sqlite, postgres: on_postgres };
const HEAD: Table = Table::new("head", 1, &[("single", Kind::Flag), ("place", Kind::Local)]).seeded();

/// A schema that lacks the last migration's table.
static FORGETFUL: Schema = Schema { tables: &[THINGS], ..WHOLE };
static SHORT: Schema = Schema {
    tables: &[Table::new("things", 2, &[("part", Kind::Number), ("position", Kind::Number), ("id", Kind::Id)]), HEAD],
    ..WHOLE
};

fn on_sqlite() -> Runner {
    runner(
        "CREATE TABLE things (part INTEGER NOT NULL, position INTEGER NOT NULL, id BLOB, text TEXT, bytes BLOB, flag INTEGER, PRIMARY KEY (part, position)) STRICT;
        CREATE TABLE head (single INTEGER PRIMARY KEY CHECK (single = 1), place TEXT NOT NULL) STRICT;
        INSERT INTO head VALUES (1, 'here')",
    )
}

fn on_postgres() -> Runner {
    runner(
        "CREATE TABLE things (part smallint, position bigint, id uuid, text text, bytes bytea, flag boolean, PRIMARY KEY (part, position));
        CREATE TABLE head (single boolean PRIMARY KEY, place text NOT NULL); INSERT INTO head VALUES (true, 'here')",
    )
}

fn runner(sql: &str) -> Runner {
    Runner::new(&[Migration::unapplied("V1__all", sql).expect("a migration")])
}

fn storage() -> StorageConfig {
    StorageConfig {
        data_dir: "unused".into(),
        postgres: PostgresConfig { migrate: Migrate::Off, postgres_connections: 4, ..PostgresConfig::default() },
    }
}

fn sqlite(path: &Path) -> StoreUrl {
    StoreUrl::Sqlite(path.join("store.db"))
}

#[tokio::test]
async fn all_data_is_transferred() {
    contract::check(&WHOLE).await.unwrap();
}

#[tokio::test]
async fn missing_table_or_column_is_detected() {
    for schema in [&FORGETFUL, &SHORT] {
        let error = contract::check(schema).await.unwrap_err().to_string();
        assert!(error.starts_with("the migrations differ"), "{error}");
    }
}

#[tokio::test]
async fn largest_numbers_survive_transfer() {
    let lines = format!("[-32768,{},null,null,null,null]\n[32767,{},null,\"\",\"\",false]\n", i64::MIN, i64::MAX);
    for url in [sqlite(&testing::directory()), StoreUrl::Postgres(testing::database().await)] {
        let mut locked = WHOLE.lock_empty(&url, &storage()).await.unwrap();
        locked.load(&THINGS, lines.as_bytes()).await.unwrap();
        locked.commit().await.unwrap();
        let mut back = Vec::new();
        WHOLE.lock(&url, &storage()).await.unwrap().dump(&THINGS, &mut back).await.unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), lines);
    }
}

#[tokio::test]
async fn store_in_use_is_rejected() {
    let url = StoreUrl::Postgres(testing::database().await);
    for url in [&url, &sqlite(&testing::directory())] {
        let locked = WHOLE.lock_empty(url, &storage()).await.unwrap();
        locked.commit().await.unwrap();
        let user = WHOLE.lock(url, &storage()).await.unwrap();
        let error = WHOLE.lock(url, &storage()).await.err().unwrap().to_string();
        assert!(error.contains("; stop "), "{error}");
        drop(user);
        WHOLE.lock(url, &storage()).await.unwrap();
    }
}

#[tokio::test]
async fn missing_store_is_not_created() {
    let directory = testing::directory();
    let error = WHOLE.lock(&sqlite(&directory), &storage()).await.err().unwrap().to_string();
    assert!(error.starts_with("there is no "), "{error}");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

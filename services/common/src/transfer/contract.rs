//! Checks of a transferable schema, for the tests of each service: the schema lists everything that its migrations
//! create, and every value survives the transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use uuid::Uuid;

use super::row::line;
use super::{Kind, LockedStore, Row, Schema, Table, Value};
use crate::config::Migrate;
use crate::pg::PostgresConfig;
use crate::sqlite::open_alone;
use crate::store::{StorageConfig, StoreUrl};
use crate::testing;

/// Rows per filled table.
const ROWS: u64 = 1203;

/// Checks that a schema is complete and survives a transfer.
///
/// # Errors
/// When a check fails.
pub async fn check(schema: &'static Schema) -> anyhow::Result<()> {
    let nullable = named(schema).await.context("the migrations differ from the schema to transfer")?;
    let [first, second, third] = [sqlite(), postgres().await, sqlite()];
    fill(schema, &first, &nullable).await?;
    let transferred = contents(schema, &first).await?;
    for (from, to) in [(&first, &second), (&second, &third), (&second, &postgres().await)] {
        transfer(schema, from, to).await.with_context(|| format!("from {from:?} to {to:?}"))?;
        ensure!(contents(schema, to).await? == transferred, "{to:?} received different rows");
    }
    for full in [&first, &second] {
        let refused = schema.lock_empty(full, &storage()).await.err().context("filling a full store must fail")?;
        ensure!(refused.to_string().contains("has rows in its table"), "{refused:#}");
    }
    for url in [sqlite(), postgres().await] {
        let mut locked = schema.lock_empty(&url, &storage()).await?;
        load(&mut locked, &transferred).await?;
        drop(locked);
        schema.lock_empty(&url, &storage()).await.context("uncommitted rows are there")?;
    }
    Ok(())
}

fn sqlite() -> StoreUrl {
    StoreUrl::Sqlite(testing::directory().join("store.db"))
}

async fn postgres() -> StoreUrl {
    StoreUrl::Postgres(testing::database().await)
}

fn storage() -> StorageConfig {
    StorageConfig {
        data_dir: PathBuf::new(),
        postgres: PostgresConfig { migrate: Migrate::Off, postgres_connections: 4, ..PostgresConfig::default() },
    }
}

/// Returns all tables of a store as lines.
async fn contents(schema: &'static Schema, url: &StoreUrl) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut locked = schema.lock(url, &storage()).await?;
    let mut contents = Vec::new();
    for table in schema.tables {
        let mut lines = Vec::new();
        let tally = locked.dump(table, &mut lines).await?;
        ensure!(tally.rows == lines.iter().filter(|byte| **byte == b'\n').count() as u64, "{tally:?}");
        ensure!(locked.tally(table).await? == tally, "{} changed while it was locked", table.name);
        contents.push(lines);
    }
    Ok(contents)
}

async fn load(locked: &mut LockedStore, contents: &[Vec<u8>]) -> anyhow::Result<()> {
    for (table, lines) in locked.schema.tables.iter().zip(contents) {
        locked.load(table, &lines[..]).await?;
    }
    Ok(())
}

async fn transfer(schema: &'static Schema, from: &StoreUrl, to: &StoreUrl) -> anyhow::Result<()> {
    let contents = contents(schema, from).await?;
    let mut locked = schema.lock_empty(to, &storage()).await?;
    load(&mut locked, &contents).await?;
    locked.commit().await
}

/// Fills a SQLite store with rows that contain every value that is hard to transfer.
async fn fill(schema: &'static Schema, url: &StoreUrl, nullable: &BTreeSet<(String, String)>) -> anyhow::Result<()> {
    let StoreUrl::Sqlite(path) = url else { anyhow::bail!("not SQLite") };
    let mut locked = schema.lock_empty(url, &storage()).await?;
    for table in schema.tables {
        let rows = if table.columns[0].1 == Kind::Flag { 1 } else { ROWS };
        let lines = (1..=rows).map(|n| line(&row(table, n, nullable))).collect::<anyhow::Result<Vec<_>>>()?;
        locked.load(table, &lines.concat()[..]).await?;
    }
    locked.commit().await?;
    let (connection, _lock) = open_alone(path, (schema.sqlite)())?;
    for table in schema.tables {
        for (column, _) in table.columns.iter().filter(|(_, kind)| *kind == Kind::Local) {
            connection.execute(&format!("UPDATE {} SET {column} = 'here'", table.name), [])?;
        }
    }
    Ok(())
}

/// Returns the row with this number; no two values of a kind are equal.
fn row(table: &Table, n: u64, nullable: &BTreeSet<(String, String)>) -> Row {
    let column = |(at, (name, kind)): (usize, &super::Column)| {
        if n.is_multiple_of(3) && nullable.contains(&(table.name.into(), (*name).into())) {
            return Value::Null;
        }
        match kind {
            // Ids are not in the order of the numbers.
            Kind::Id => {
                Value::Id(Uuid::from_u128((u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64) + at as u128))
            }
            // Fits the smallest type of a number.
            Kind::Number => Value::Number(n as i64),
            Kind::Flag => Value::Flag(at == 0 || n.is_multiple_of(2)),
            Kind::Text => Value::Text(format!("{n} \"\\\n\u{7f}\u{2028}\u{1F375} é")),
            Kind::Bytes => Value::Bytes((0..=255).chain(n.to_be_bytes()).collect()),
            Kind::Local => Value::Text(String::new()),
        }
    };
    table.columns.iter().enumerate().map(column).collect()
}

/// Each column of each table, and its position in the primary key (from 1), if any.
type Columns = BTreeMap<(String, String), u32>;

/// Compares the schema with the result of its migrations. Returns the columns that may be null.
async fn named(schema: &'static Schema) -> anyhow::Result<BTreeSet<(String, String)>> {
    let columns = |table: &Table| {
        let key = table.key;
        let place = move |(at, name): (usize, &str)| {
            ((table.name.to_owned(), name.to_owned()), if at < key { at as u32 + 1 } else { 0 })
        };
        table.columns().enumerate().map(place).collect::<Vec<_>>()
    };
    let transferred = schema.tables.iter().flat_map(columns).collect::<Columns>();
    let (on_sqlite, nullable) = sqlite_columns(schema)?;
    ensure!(on_sqlite == transferred, "SQLite: {on_sqlite:?}\nschema: {transferred:?}");
    let on_postgres = postgres_columns(schema).await?;
    ensure!(on_postgres == transferred.into_keys().collect(), "Postgres: {on_postgres:?}");
    Ok(nullable)
}

fn sqlite_columns(schema: &Schema) -> anyhow::Result<(Columns, BTreeSet<(String, String)>)> {
    let (connection, _lock) = open_alone(&testing::directory().join("empty.db"), (schema.sqlite)())?;
    let mut catalog = connection.prepare(
        // Full-text search indexes are virtual tables over shadow tables.
        "SELECT t.name, c.name, c.pk, c.\"notnull\" FROM pragma_table_list t JOIN pragma_table_info(t.name) c
        WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> 'refinery_schema_history'",
    )?;
    let (mut columns, mut nullable) = (Columns::new(), BTreeSet::new());
    let mut rows = catalog.query([])?;
    while let Some(row) = rows.next()? {
        let (name, place): ((String, String), u32) = ((row.get(0)?, row.get(1)?), row.get(2)?);
        if schema.derived.contains(&name.0.as_str()) {
            continue;
        }
        if place == 0 && !row.get::<_, bool>(3)? {
            nullable.insert(name.clone());
        }
        columns.insert(name, place);
    }
    Ok((columns, nullable))
}

async fn postgres_columns(schema: &'static Schema) -> anyhow::Result<BTreeSet<(String, String)>> {
    let url = testing::database().await;
    schema.lock_empty(&StoreUrl::Postgres(url.clone()), &storage()).await?;
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let catalog = "SELECT table_name::text, column_name::text FROM information_schema.columns
        WHERE table_schema = $1 AND table_name <> 'refinery_schema_history'";
    let rows = client.query(catalog, &[&schema.name]).await?;
    let columns = rows.iter().map(|row| (row.get::<_, String>(0), row.get(1)));
    Ok(columns.filter(|(table, _)| !schema.derived.contains(&table.as_str())).collect())
}

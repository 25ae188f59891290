//! A Postgres schema locked by one transaction.

use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;

use super::{Kind, Row, Schema, Table, Value};
use crate::Secret;
use crate::pg::{Client, Pool, PostgresConfig};

/// How long programs that are shutting down may take to close their connections.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(5);

pub struct Session(Client);

impl Session {
    pub async fn begin(
        url: &Secret,
        schema: &Schema,
        config: &PostgresConfig,
        isolation: &str,
    ) -> anyhow::Result<Self> {
        // A pool of one connection, so that every other connection belongs to another process.
        let config = PostgresConfig { postgres_connections: 1, ..config.clone() };
        let pool = Pool::open(url, schema.name, (schema.postgres)(), &config).await?;
        // Dropping the client closes the connection, which rolls back uncommitted writes.
        let client = pool.take().await?;
        alone(&client, schema.name).await?;
        // Unlike a request, a transfer has no time limit. The first query fixes the snapshot.
        let patience = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        client.batch_execute(&format!("BEGIN {isolation}; {patience}; SELECT 1")).await?;
        Ok(Self(client))
    }

    /// Prevents other sessions from writing.
    pub async fn lock(&mut self, tables: &[Table]) -> anyhow::Result<()> {
        let names = tables.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        Ok(self.0.batch_execute(&format!("/* lock */ LOCK TABLE {names} IN EXCLUSIVE MODE")).await?)
    }

    pub async fn page(&mut self, table: &Table, after: Option<&[Value]>) -> anyhow::Result<Vec<Row>> {
        let key = after.unwrap_or_default();
        let places = after.map(|key| {
            let kinds = table.columns.iter().map(|(_, kind)| sql_type(*kind));
            kinds.zip(1..=key.len()).map(|(name, n)| format!("${n}::{name}")).collect()
        });
        let selection = table.selection(|name| format!("{name}::bigint"));
        let sql = format!("/* page */ SELECT {selection} {}", table.page(places));
        let statement = self.0.prepare_cached(&sql).await?;
        let key = key.iter().map(parameter).collect::<anyhow::Result<Vec<_>>>()?;
        let rows = self.0.query(&statement, &key).await?;
        let row = |row: &tokio_postgres::Row| {
            let values = table.columns.iter().enumerate().map(|(n, (_, kind))| value(*kind, row, n));
            values.collect::<Result<Row, _>>()
        };
        Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
    }

    pub async fn add(&mut self, table: &Table, rows: &[Row]) -> anyhow::Result<()> {
        let arrays = (1..)
            .zip(table.columns)
            .map(|(n, (_, kind))| format!("${n}::{}[]", sql_type(*kind)))
            .collect::<Vec<_>>()
            .join(", ");
        let sql = format!("/* add */ INSERT INTO {} ({}) SELECT * FROM unnest({arrays})", table.name, table.names());
        let statement = self.0.prepare_cached(&sql).await?;
        let columns = (0..table.columns.len()).map(|n| column(table.columns[n].1, rows.iter().map(move |row| &row[n])));
        let columns = columns.collect::<Vec<_>>();
        let columns = columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect::<Vec<_>>();
        self.0.execute(&statement, &columns).await?;
        Ok(())
    }

    pub async fn clear(&mut self, table: &Table) -> anyhow::Result<()> {
        Ok(self.0.batch_execute(&format!("/* clear */ DELETE FROM {}", table.name)).await?)
    }

    pub async fn commit(self) -> anyhow::Result<()> {
        Ok(self.0.batch_execute("COMMIT").await?)
    }
}

/// Waits until other Confab programs have disconnected from this schema, within a time limit. SQLite has a lock file
/// for this purpose.
async fn alone(client: &Client, schema: &str) -> anyhow::Result<()> {
    let until = Instant::now() + DISCONNECT_LIMIT;
    loop {
        let others = "/* alone */ SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
        if client.query_one(others, &[]).await?.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "a running program of confab-{schema} is connected to the store; stop all Confab programs first"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "uuid",
        Kind::Number => "bigint",
        Kind::Flag => "boolean",
        Kind::Text | Kind::Local => "text",
        Kind::Bytes => "bytea",
    }
}

fn value(kind: Kind, row: &tokio_postgres::Row, n: usize) -> Result<Value, tokio_postgres::Error> {
    let value = match kind {
        Kind::Id => row.try_get::<_, Option<_>>(n)?.map(Value::Id),
        Kind::Number => row.try_get::<_, Option<_>>(n)?.map(Value::Number),
        Kind::Flag => row.try_get::<_, Option<_>>(n)?.map(Value::Flag),
        Kind::Text | Kind::Local => row.try_get::<_, Option<_>>(n)?.map(Value::Text),
        Kind::Bytes => row.try_get::<_, Option<_>>(n)?.map(Value::Bytes),
    };
    Ok(value.unwrap_or(Value::Null))
}

/// Converts a value of a key to a query parameter.
fn parameter(value: &Value) -> anyhow::Result<&(dyn ToSql + Sync)> {
    Ok(match value {
        Value::Id(id) => id,
        Value::Number(number) => number,
        Value::Flag(flag) => flag,
        Value::Text(text) => text,
        _ => bail!("a key consists of ids, numbers, flags and texts"),
    })
}

/// Returns the values of a column; a value of another kind becomes null.
fn column<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>) -> Box<dyn ToSql + Sync + Send + 'a> {
    macro_rules! array {
        ($pattern:pat => $value:expr) => {
            Box::new(values.map(|value| if let $pattern = value { Some($value) } else { None }).collect::<Vec<_>>())
        };
    }
    match kind {
        Kind::Id => array!(Value::Id(id) => *id),
        Kind::Number => array!(Value::Number(number) => *number),
        Kind::Flag => array!(Value::Flag(flag) => *flag),
        Kind::Text | Kind::Local => array!(Value::Text(text) => text.as_str()),
        Kind::Bytes => array!(Value::Bytes(bytes) => bytes.as_slice()),
    }
}

//! The audit on Postgres.

use confab_common::Result;
use confab_common::pg::{Client, prepare};
use futures::future::BoxFuture;
use tokio_postgres::{Row, Statement, Transaction};

use super::Postgres;
use crate::store::{Actor, AuditPosition, AuditStore, Entry};

const INSERT: &str = "/* record */ INSERT INTO audit (id, at_ms, key_id, act, object, details, request_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

/// The entry that a transaction writes, if its act is recorded.
pub struct Record<'a>(Option<(Statement, &'a Entry)>);

impl<'a> Record<'a> {
    /// Prepares the statement before the transaction begins.
    pub async fn prepare(client: &Client, entry: Option<&'a Entry>) -> Result<Self> {
        Ok(match entry {
            Some(entry) => Self(Some((prepare(client, INSERT).await?, entry))),
            None => Self(None),
        })
    }

    /// Writes the entry.
    pub async fn write(&self, transaction: &Transaction<'_>) -> Result<()> {
        let Some((insert, entry)) = &self.0 else { return Ok(()) };
        let Entry { id, at_ms, actor: Actor { key_id, request_id }, act, object, details } = entry;
        transaction.execute(insert, &[id, at_ms, key_id, act, object, details, request_id]).await?;
        Ok(())
    }
}

impl AuditStore for Postgres {
    fn record(&self, entry: Entry) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Entry { id, at_ms, actor: Actor { key_id, request_id }, act, object, details } = &entry;
            self.0.execute(INSERT, &[id, at_ms, key_id, act, object, details, request_id]).await.map(drop)
        })
    }

    fn audit(&self, below: AuditPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Entry>>> {
        Box::pin(async move {
            const SQL: &str = "/* audit */ SELECT id, at_ms, key_id, act, object, details, request_id FROM audit
                WHERE (at_ms, id) < ($1, $2) ORDER BY at_ms DESC, id DESC LIMIT $3";
            let rows = self.0.query(SQL, &[&below.at_ms, &below.id, &i64::from(limit)]).await?;
            Ok(rows.iter().map(entry).collect())
        })
    }

    fn purge_audit(&self, before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const SQL: &str = "/* purge_audit */ SELECT purge_audit($1, $2)";
            let rows = self.0.query(SQL, &[&before_ms, &i64::from(limit)]).await?;
            Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
        })
    }
}

fn entry(row: &Row) -> Entry {
    Entry {
        id: row.get(0),
        at_ms: row.get(1),
        actor: Actor { key_id: row.get(2), request_id: row.get(6) },
        act: row.get(3),
        object: row.get(4),
        details: row.get(5),
    }
}

//! The audit on SQLite.

use confab_common::Result;
use futures::future::BoxFuture;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::{Sqlite, id, optional_id};
use crate::store::{Actor, AuditPosition, AuditStore, Entry};

impl AuditStore for Sqlite {
    fn record(&self, entry: Entry) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.write(move |connection| record(connection, Some(&entry))))
    }

    fn audit(&self, below: AuditPosition, limit: u32) -> BoxFuture<'_, Result<Vec<Entry>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* audit */ SELECT id, at_ms, key_id, act, object, details, request_id FROM audit
                WHERE (at_ms, id) < (?1, ?2) ORDER BY at_ms DESC, id DESC LIMIT ?3";
            Ok(connection
                .prepare_cached(SQL)?
                .query_map(params![below.at_ms, below.id.into_bytes(), limit], entry)?
                .collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn purge_audit(&self, before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* purge_audit */ DELETE FROM audit WHERE id IN (
                    SELECT id FROM audit WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)";
            Ok(connection.prepare_cached(SQL)?.execute(params![before_ms, limit])? as u64)
        }))
    }
}

/// Writes the entry about an act within its write; nothing for an act that is not recorded.
pub fn record(connection: &Connection, entry: Option<&Entry>) -> Result<()> {
    const SQL: &str = "/* record */ INSERT INTO audit (id, at_ms, key_id, act, object, details, request_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
    let Some(Entry { id, at_ms, actor: Actor { key_id, request_id }, act, object, details }) = entry else {
        return Ok(());
    };
    let (id, key_id) = (id.into_bytes(), key_id.map(Uuid::into_bytes));
    connection.prepare_cached(SQL)?.execute(params![id, at_ms, key_id, act, object, details, request_id])?;
    Ok(())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: id(row, 0)?,
        at_ms: row.get(1)?,
        actor: Actor { key_id: optional_id(row, 2)?, request_id: row.get(6)? },
        act: row.get(3)?,
        object: row.get(4)?,
        details: row.get(5)?,
    })
}

//! Server keys on SQLite.

use confab_common::Result;
use confab_proto::server_key::Scopes;
use futures::future::BoxFuture;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::audit::record;
use super::{Sqlite, id};
use crate::store::{Entry, KeyStore, ServerKey};

impl KeyStore for Sqlite {
    fn create_key(&self, key: ServerKey, max: u32, entry: Entry) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* create_key */ INSERT INTO server_keys (id, name, sha256, scopes, created_at_ms)
                SELECT ?1, ?2, ?3, ?4, ?5 WHERE (SELECT count(*) FROM server_keys) < ?6
                    AND (?7 IS NULL OR EXISTS (SELECT 1 FROM server_keys WHERE id = ?7))";
            let ServerKey { id, name, sha256, scopes, created_at_ms } = &key;
            let actor = entry.actor.key_id.map(Uuid::into_bytes);
            let values = params![id.into_bytes(), name, sha256, scopes.to_string(), created_at_ms, max, actor];
            if connection.prepare_cached(SQL)?.execute(values)? == 0 {
                return Ok(false);
            }
            record(connection, Some(&entry))?;
            Ok(true)
        }))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<ServerKey>>> {
        Box::pin(self.0.read(|connection| {
            const SQL: &str =
                "/* keys */ SELECT id, name, sha256, scopes, created_at_ms FROM server_keys ORDER BY created_at_ms, id";
            Ok(connection.prepare_cached(SQL)?.query_map([], key)?.collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn key(&self, id: Uuid) -> BoxFuture<'_, Result<Option<ServerKey>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* key */ SELECT id, name, sha256, scopes, created_at_ms FROM server_keys WHERE id = ?1";
            Ok(connection.prepare_cached(SQL)?.query_row([id.into_bytes()], key).optional()?)
        }))
    }

    fn delete_key(&self, id: Uuid, entry: Entry) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* delete_key */ DELETE FROM server_keys WHERE id = ?1";
            if connection.prepare_cached(SQL)?.execute([id.into_bytes()])? == 0 {
                return Ok(false);
            }
            record(connection, Some(&entry))?;
            Ok(true)
        }))
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<ServerKey> {
    let scopes = Scopes::of_names(row.get::<_, String>(3)?.split(' '));
    Ok(ServerKey { id: id(row, 0)?, name: row.get(1)?, sha256: row.get(2)?, scopes, created_at_ms: row.get(4)? })
}

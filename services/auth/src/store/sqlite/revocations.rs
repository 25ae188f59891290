//! The list of revocations on SQLite.

use confab_common::Result;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Sqlite, id, list, optional_id};
use crate::store::{Revocation, RevocationStore, Revocations, Scope, State};

impl RevocationStore for Sqlite {
    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>> {
        Box::pin(self.0.write(move |connection| {
            const LATEST: &str = "/* revoke */ SELECT token_expires_at_ms FROM sessions WHERE id = ?1";
            if let Some(known) = of_session(connection, session_id)? {
                return Ok(known);
            }
            let latest = connection.prepare_cached(LATEST)?.query_row([session_id.into_bytes()], |row| row.get(0));
            let expires_at_ms = expires_at_ms.max(latest.optional()?.unwrap_or(0));
            list::append(connection, user_id, Scope::Session(session_id), expires_at_ms)
        }))
    }

    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>> {
        Box::pin(self.0.read(move |connection| {
            const PAGE: &str =
                "/* revocations */ SELECT number, session_id, user_id, expires_at_ms, kind, not_before_s,
                    except_session_id, coalesce(state = ?3, FALSE)
                FROM revocations LEFT JOIN users ON kind = 2 AND id = user_id
                WHERE number > ?1 ORDER BY number LIMIT ?2";
            const HEAD: &str = "/* revocations */ SELECT number FROM revocation_head";
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let items = connection
                .prepare_cached(PAGE)?
                .query_map(params![after, limit, State::Deleted.number()], revocation)?
                .collect::<rusqlite::Result<_>>()?;
            let head = connection.prepare_cached(HEAD)?.query_row([], |row| row.get::<_, i64>(0))? as u64;
            Ok(Revocations { items, head })
        }))
    }

    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* purge */ DELETE FROM revocations WHERE number IN (
                    SELECT number FROM revocations WHERE expires_at_ms < ?1 AND kind <> 2
                    ORDER BY expires_at_ms LIMIT ?2)";
            Ok(connection.prepare_cached(SQL)?.execute(params![expired_before_ms, limit])? as u64)
        }))
    }

    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str =
                "/* shorten */ UPDATE revocations SET expires_at_ms = ?1 WHERE expires_at_ms > ?1 AND kind <> 2";
            Ok(connection.prepare_cached(SQL)?.execute(params![latest_ms])? as u64)
        }))
    }
}

/// Returns the revocation of a session.
pub fn of_session(connection: &Connection, session_id: Uuid) -> Result<Option<Revocation>> {
    const FIND: &str =
        "/* revoke */ SELECT number, session_id, user_id, expires_at_ms, kind, not_before_s, except_session_id, FALSE
        FROM revocations WHERE session_id = ?1";
    Ok(connection.prepare_cached(FIND)?.query_row([session_id.into_bytes()], revocation).optional()?)
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    Ok(Revocation {
        number: row.get::<_, i64>(0)? as u64,
        scope: Scope::of(row.get(4)?, id(row, 1)?, id(row, 2)?, row.get(5)?, optional_id(row, 6)?, row.get(7)?),
        expires_at_ms: row.get(3)?,
    })
}

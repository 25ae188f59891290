//! The store on SQLite.

use std::path::Path;

use confab_common::sqlite::Database;
use confab_common::{Code, Error, Result};
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Revocation, Revocations, Store, User};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

pub struct Sqlite(Database);

impl Sqlite {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(Database::open(path, embedded::migrations::runner())?))
    }
}

impl Store for Sqlite {
    fn create_user(&self, user: User, skeleton: String) -> BoxFuture<'_, Result<User>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str =
                "/* create_user */ INSERT INTO users (id, username, username_folded, password_hash, created_at_ms, username_skeleton)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
            let inserted = connection.prepare_cached(SQL)?.execute(params![
                user.id.into_bytes(),
                user.username,
                user.username_folded,
                user.password_hash,
                user.created_at_ms,
                skeleton
            ])?;
            if inserted == 1 {
                return Ok(user);
            }
            user_by_id(connection, user.id)?.ok_or_else(|| Error::new(Code::UsernameTaken, "this username is taken"))
        }))
    }

    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* without_skeleton */ SELECT id, username FROM users
                WHERE username_skeleton IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
            let named = |row: &Row<'_>| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?));
            Ok(connection
                .prepare_cached(SQL)?
                .query_map(params![after.into_bytes(), limit], named)?
                .collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn fill_skeletons(&self, skeletons: Vec<(Uuid, String)>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* fill_skeletons */ UPDATE OR IGNORE users SET username_skeleton = ?2
                WHERE id = ?1 AND username_skeleton IS NULL";
            let mut update = connection.prepare_cached(SQL)?;
            let filled = skeletons.iter().map(|(id, skeleton)| update.execute(params![id.into_bytes(), skeleton]));
            Ok(filled.sum::<rusqlite::Result<usize>>()? as u64)
        }))
    }

    fn user(&self, id: Uuid) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.read(move |connection| user_by_id(connection, id)))
    }

    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* user_by_name */ SELECT id, username, username_folded, password_hash, created_at_ms
                FROM users WHERE username_folded = ?1";
            Ok(connection.prepare_cached(SQL)?.query_row([folded], user).optional()?)
        }))
    }

    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>> {
        Box::pin(self.0.write(move |connection| {
            const FIND: &str = "/* revoke */ SELECT number, session_id, expires_at_ms FROM revocations WHERE session_id = ?1";
            const ADVANCE: &str = "/* revoke */ UPDATE revocation_head SET number = number + 1 RETURNING number";
            const INSERT: &str =
                "/* revoke */ INSERT INTO revocations (number, session_id, user_id, expires_at_ms) VALUES (?1, ?2, ?3, ?4)";
            let known = connection.prepare_cached(FIND)?.query_row([session_id.into_bytes()], revocation).optional()?;
            if let Some(known) = known {
                return Ok(known);
            }
            let number = connection.prepare_cached(ADVANCE)?.query_row([], |row| row.get::<_, i64>(0))?;
            connection.prepare_cached(INSERT)?.execute(params![number, session_id.into_bytes(), user_id.into_bytes(), expires_at_ms])?;
            Ok(Revocation { number: number as u64, session_id, expires_at_ms })
        }))
    }

    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>> {
        Box::pin(self.0.read(move |connection| {
            const PAGE: &str = "/* revocations */ SELECT number, session_id, expires_at_ms FROM revocations
                WHERE number > ?1 ORDER BY number LIMIT ?2";
            const HEAD: &str = "/* revocations */ SELECT number FROM revocation_head";
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let items = connection
                .prepare_cached(PAGE)?
                .query_map(params![after, limit], revocation)?
                .collect::<rusqlite::Result<_>>()?;
            let head = connection.prepare_cached(HEAD)?.query_row([], |row| row.get::<_, i64>(0))? as u64;
            Ok(Revocations { items, head })
        }))
    }

    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* purge */ DELETE FROM revocations WHERE number IN (
                    SELECT number FROM revocations WHERE expires_at_ms < ?1 ORDER BY expires_at_ms LIMIT ?2)";
            Ok(connection.prepare_cached(SQL)?.execute(params![expired_before_ms, limit])? as u64)
        }))
    }

    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* shorten */ UPDATE revocations SET expires_at_ms = ?1 WHERE expires_at_ms > ?1";
            Ok(connection.prepare_cached(SQL)?.execute(params![latest_ms])? as u64)
        }))
    }
}

fn user_by_id(connection: &Connection, id: Uuid) -> Result<Option<User>> {
    const SQL: &str =
        "/* user_by_id */ SELECT id, username, username_folded, password_hash, created_at_ms FROM users WHERE id = ?1";
    Ok(connection.prepare_cached(SQL)?.query_row([id.into_bytes()], user).optional()?)
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: Uuid::from_bytes(row.get(0)?),
        username: row.get(1)?,
        username_folded: row.get(2)?,
        password_hash: row.get(3)?,
        created_at_ms: row.get(4)?,
    })
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    Ok(Revocation {
        number: row.get::<_, i64>(0)? as u64,
        session_id: Uuid::from_bytes(row.get(1)?),
        expires_at_ms: row.get(2)?,
    })
}

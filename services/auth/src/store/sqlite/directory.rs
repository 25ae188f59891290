//! The directory of users on SQLite. Each call except a renewal is one statement over an index.

use confab_common::Result;
use futures::future::BoxFuture;
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{Sqlite, id, user};
use crate::store::{DirectoryStore, Match, MatchPosition, OutdatedName, ShownName, User};

const ACTIVE: &str = concat!(
    "/* active_users */ SELECT ",
    user_columns!(),
    " FROM users WHERE id IN (SELECT unhex(value) FROM json_each(?1)) AND state = 0"
);

// Each part ends at the limit. A subquery, because only the last part of a union may have an order of its own.
const MATCHES: &str = concat!(
    "/* matches */ SELECT * FROM (
        SELECT * FROM (SELECT ",
    user_columns!(),
    ", username_folded AS matched, 1 AS by_username FROM users INDEXED BY users_by_username
            WHERE state = 0 AND (username_folded, id) > (?1, ?2) AND username_folded < ?3
            ORDER BY username_folded, id LIMIT ?4)
        UNION ALL
        SELECT * FROM (SELECT ",
    user_columns!(),
    ", shown_folded AS matched, 0 AS by_username FROM users INDEXED BY users_by_shown_name
            WHERE state = 0 AND shown_folded IS NOT NULL AND (shown_folded, id) > (?1, ?2) AND shown_folded < ?3
                AND shown_name = coalesce(display_name, claimed_name)
            ORDER BY shown_folded, id LIMIT ?4))
    ORDER BY matched, id, by_username DESC LIMIT ?4"
);

const OUTDATED: &str = "/* outdated_names */ SELECT id, coalesce(display_name, claimed_name) FROM users
    WHERE shown_name IS NOT coalesce(display_name, claimed_name) AND id > ?1 ORDER BY id LIMIT ?2";

const RENEW: &str = "/* renew_names */ UPDATE users SET shown_name = ?2, shown_folded = ?3
    WHERE id = ?1 AND coalesce(display_name, claimed_name) IS ?2";

fn found(row: &Row<'_>) -> rusqlite::Result<Match> {
    Ok(Match { user: user(row)?, name: row.get(13)?, by_username: row.get(14)? })
}

impl DirectoryStore for Sqlite {
    fn active_users(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<User>>> {
        Box::pin(self.0.read(move |connection| {
            let ids = serde_json::json!(ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>()).to_string();
            let mut select = connection.prepare_cached(ACTIVE)?;
            Ok(select.query_map([ids], user)?.collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn matches(&self, after: MatchPosition, end: String, limit: u32) -> BoxFuture<'_, Result<Vec<Match>>> {
        Box::pin(self.0.read(move |connection| {
            let values = params![after.name, after.id.into_bytes(), end, limit];
            Ok(connection.prepare_cached(MATCHES)?.query_map(values, found)?.collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn outdated_names(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<OutdatedName>>> {
        Box::pin(self.0.read(move |connection| {
            let named = |row: &Row<'_>| Ok((id(row, 0)?, row.get(1)?));
            Ok(connection
                .prepare_cached(OUTDATED)?
                .query_map(params![after.into_bytes(), limit], named)?
                .collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn renew_names(&self, names: Vec<(Uuid, ShownName)>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            let mut update = connection.prepare_cached(RENEW)?;
            let renewed =
                names.iter().map(|(id, shown)| update.execute(params![id.into_bytes(), shown.name, shown.folded]));
            Ok(renewed.sum::<rusqlite::Result<usize>>()? as u64)
        }))
    }
}

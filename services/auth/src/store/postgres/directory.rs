//! The directory of users on Postgres. Each call is one statement over an index.

use confab_common::Result;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Postgres, user};
use crate::store::{DirectoryStore, Match, MatchPosition, OutdatedName, ShownName, User};

// `state = 0` is a literal, because the indexes contain only active users.
const ACTIVE: &str =
    concat!("/* active_users */ SELECT ", user_columns!(), " FROM users WHERE id = ANY($1) AND state = 0");

// Each part ends at the limit. The columns of both parts have the collation \"C\".
const MATCHES: &str = concat!(
    "/* matches */ SELECT ",
    user_columns!(),
    ", matched, by_username FROM (
        (SELECT ",
    user_columns!(),
    ", username_folded AS matched, true AS by_username FROM users
         WHERE state = 0 AND (username_folded, id) > ($1, $2) AND username_folded < $3
         ORDER BY username_folded, id LIMIT $4::bigint)
        UNION ALL
        (SELECT ",
    user_columns!(),
    ", shown_folded AS matched, false AS by_username FROM users
         WHERE state = 0 AND shown_folded IS NOT NULL AND (shown_folded, id) > ($1, $2) AND shown_folded < $3
             AND shown_name = coalesce(display_name, claimed_name)
         ORDER BY shown_folded, id LIMIT $4::bigint)
    ) matches
    ORDER BY matched COLLATE \"C\", id, by_username DESC LIMIT $4::bigint"
);

const OUTDATED: &str = "/* outdated_names */ SELECT id, coalesce(display_name, claimed_name) FROM users
    WHERE shown_name IS DISTINCT FROM coalesce(display_name, claimed_name) AND id > $1 ORDER BY id LIMIT $2";

// Replicas may renew at the same time: each skips rows that another replica has locked.
const RENEW: &str = "/* renew_names */ WITH locked AS (
        SELECT users.id, given.name, given.folded
        FROM users JOIN unnest($1::uuid[], $2::text[], $3::text[]) given (id, name, folded) USING (id)
        WHERE coalesce(display_name, claimed_name) IS NOT DISTINCT FROM given.name
        ORDER BY users.id FOR UPDATE OF users SKIP LOCKED)
    UPDATE users SET shown_name = locked.name, shown_folded = locked.folded FROM locked WHERE users.id = locked.id";

impl DirectoryStore for Postgres {
    fn active_users(&self, ids: Vec<Uuid>) -> BoxFuture<'_, Result<Vec<User>>> {
        Box::pin(async move { Ok(self.0.query(ACTIVE, &[&ids]).await?.iter().map(user).collect()) })
    }

    fn matches(&self, after: MatchPosition, end: String, limit: u32) -> BoxFuture<'_, Result<Vec<Match>>> {
        Box::pin(async move {
            let found = |row: &Row| Match { user: user(row), name: row.get(13), by_username: row.get(14) };
            let rows = self.0.query(MATCHES, &[&after.name, &after.id, &end, &i64::from(limit)]).await?;
            Ok(rows.iter().map(found).collect())
        })
    }

    fn outdated_names(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<OutdatedName>>> {
        Box::pin(async move {
            let rows = self.0.query(OUTDATED, &[&after, &i64::from(limit)]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
    }

    fn renew_names(&self, names: Vec<(Uuid, ShownName)>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let (ids, names): (Vec<Uuid>, Vec<ShownName>) = names.into_iter().unzip();
            let (names, folded): (Vec<Option<String>>, Vec<Option<String>>) =
                names.into_iter().map(|shown| (shown.name, shown.folded)).unzip();
            self.0.execute(RENEW, &[&ids, &names, &folded]).await
        })
    }
}

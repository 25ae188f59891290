//! The store on Postgres.

use confab_common::pg::{Client, Pool, PostgresConfig};
use confab_common::{Code, Error, Result, Secret};
use futures::future::BoxFuture;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Revocation, Revocations, Store, User};

pub(super) mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

pub struct Postgres(Pool);

impl Postgres {
    pub async fn open(url: &Secret, config: &PostgresConfig) -> anyhow::Result<Self> {
        Ok(Self(Pool::open(url, "auth", embedded::migrations::runner(), config).await?))
    }
}

impl Store for Postgres {
    fn create_user(&self, user: User, skeleton: String) -> BoxFuture<'_, Result<User>> {
        Box::pin(async move {
            const SQL: &str = "/* create_user */ INSERT INTO users
                (id, username, username_folded, password_hash, created_at_ms, username_skeleton)
                VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
            let User { id, username, username_folded, password_hash, created_at_ms } = &user;
            if self.0.execute(SQL, &[id, username, username_folded, password_hash, created_at_ms, &skeleton]).await?
                == 1
            {
                return Ok(user);
            }
            self.user(user.id).await?.ok_or_else(|| Error::new(Code::UsernameTaken, "this username is taken"))
        })
    }

    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>> {
        Box::pin(async move {
            const SQL: &str = "/* without_skeleton */ SELECT id, username FROM users
                WHERE username_skeleton IS NULL AND id > $1 ORDER BY id LIMIT $2";
            Ok(self
                .0
                .query(SQL, &[&after, &i64::from(limit)])
                .await?
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect())
        })
    }

    fn fill_skeletons(&self, skeletons: Vec<(Uuid, String)>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // Replicas may fill at the same time: each skips rows that another replica has locked.
            const SQL: &str = "/* fill_skeletons */ WITH locked AS (
                    SELECT users.id, given.skeleton FROM users JOIN unnest($1::uuid[], $2::text[]) given (id, skeleton) USING (id)
                    WHERE username_skeleton IS NULL ORDER BY users.id FOR UPDATE OF users SKIP LOCKED),
                oldest AS (SELECT DISTINCT ON (skeleton) id, skeleton FROM locked ORDER BY skeleton, id)
                UPDATE users SET username_skeleton = oldest.skeleton FROM oldest
                WHERE users.id = oldest.id AND NOT EXISTS (SELECT 1 FROM users other WHERE other.username_skeleton = oldest.skeleton)";
            let (ids, skeletons): (Vec<Uuid>, Vec<String>) = skeletons.into_iter().unzip();
            self.0.execute(SQL, &[&ids, &skeletons]).await
        })
    }

    fn user(&self, id: Uuid) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            const SQL: &str = "/* user */ SELECT id, username, username_folded, password_hash, created_at_ms FROM users WHERE id = $1";
            Ok(self.0.query(SQL, &[&id]).await?.first().map(user))
        })
    }

    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            const SQL: &str = "/* user_by_name */ SELECT id, username, username_folded, password_hash, created_at_ms
                FROM users WHERE username_folded = $1";
            Ok(self.0.query(SQL, &[&folded]).await?.first().map(user))
        })
    }

    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>> {
        Box::pin(
            async move { self.0.run(async |client| revoke(client, session_id, user_id, expires_at_ms).await).await },
        )
    }

    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>> {
        Box::pin(async move {
            // One statement, so that rows and head belong to one snapshot.
            const SQL: &str = "/* revocations */ SELECT page.number, page.session_id, page.expires_at_ms, head.number
                FROM revocation_head head LEFT JOIN LATERAL (
                    SELECT number, session_id, expires_at_ms FROM revocations WHERE number > $1 ORDER BY number LIMIT $2
                ) page ON TRUE ORDER BY page.number";
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let rows = self.0.query(SQL, &[&after, &i64::from(limit)]).await?;
            let head = rows.first().map_or(0, |row| row.get::<_, i64>(3) as u64);
            let items = rows.iter().filter(|row| row.get::<_, Option<i64>>(0).is_some()).map(revocation).collect();
            Ok(Revocations { items, head })
        })
    }

    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // Replicas may purge at the same time: each skips rows that another replica has locked.
            const SQL: &str = "/* purge */ DELETE FROM revocations WHERE number IN (
                    SELECT number FROM revocations WHERE expires_at_ms < $1 ORDER BY expires_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
            self.0.execute(SQL, &[&expired_before_ms, &i64::from(limit)]).await
        })
    }

    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const SQL: &str = "/* shorten */ UPDATE revocations SET expires_at_ms = $1 WHERE expires_at_ms > $1";
            self.0.execute(SQL, &[&latest_ms]).await
        })
    }
}

async fn revoke(client: &mut Client, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> Result<Revocation> {
    let transaction = client.transaction().await?;
    let lock = transaction.prepare_cached("/* revoke */ SELECT number FROM revocation_head FOR UPDATE").await?;
    let number = transaction.query_one(&lock, &[]).await?.get::<_, i64>(0) + 1;
    // Each statement after the lock has a new snapshot, and so sees the commits of the lock's previous holder.
    let find = transaction
        .prepare_cached("/* revoke */ SELECT number, session_id, expires_at_ms FROM revocations WHERE session_id = $1")
        .await?;
    if let Some(row) = transaction.query_opt(&find, &[&session_id]).await? {
        return Ok(revocation(&row));
    }
    let insert = transaction
        .prepare_cached(
            "/* revoke */ INSERT INTO revocations (number, session_id, user_id, expires_at_ms) VALUES ($1, $2, $3, $4)",
        )
        .await?;
    transaction.execute(&insert, &[&number, &session_id, &user_id, &expires_at_ms]).await?;
    let advance = transaction.prepare_cached("/* revoke */ UPDATE revocation_head SET number = $1").await?;
    transaction.execute(&advance, &[&number]).await?;
    transaction.commit().await?;
    Ok(Revocation { number: number as u64, session_id, expires_at_ms })
}

fn user(row: &Row) -> User {
    User {
        id: row.get(0),
        username: row.get(1),
        username_folded: row.get(2),
        password_hash: row.get(3),
        created_at_ms: row.get(4),
    }
}

fn revocation(row: &Row) -> Revocation {
    Revocation { number: row.get::<_, i64>(0) as u64, session_id: row.get(1), expires_at_ms: row.get(2) }
}

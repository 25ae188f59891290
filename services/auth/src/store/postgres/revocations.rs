//! The list of revocations on Postgres.

use confab_common::Result;
use confab_common::pg::Client;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use uuid::Uuid;

use super::list::List;
use super::{Postgres, prepare_all};
use crate::store::{Revocation, RevocationStore, Revocations, Scope, State};

impl RevocationStore for Postgres {
    fn revoke(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> BoxFuture<'_, Result<Revocation>> {
        Box::pin(
            async move { self.0.run(async |client| revoke(client, session_id, user_id, expires_at_ms).await).await },
        )
    }

    fn revocations(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<Revocations>> {
        Box::pin(async move {
            // One statement, so that rows and head belong to one snapshot.
            const SQL: &str = "/* revocations */ SELECT page.number, page.session_id, page.user_id, page.expires_at_ms,
                    page.kind, page.not_before_s, page.except_session_id, coalesce(users.state = $3, FALSE), head.number
                FROM revocation_head head LEFT JOIN LATERAL (
                    SELECT number, session_id, user_id, expires_at_ms, kind, not_before_s, except_session_id
                    FROM revocations WHERE number > $1 ORDER BY number LIMIT $2
                ) page ON TRUE LEFT JOIN users ON page.kind = 2 AND users.id = page.user_id ORDER BY page.number";
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let rows = self.0.query(SQL, &[&after, &i64::from(limit), &State::Deleted.number()]).await?;
            let head = rows.first().map_or(0, |row| row.get::<_, i64>(8) as u64);
            let items = rows.iter().filter(|row| row.get::<_, Option<i64>>(0).is_some()).map(revocation).collect();
            Ok(Revocations { items, head })
        })
    }

    fn purge(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // Replicas may purge at the same time: each skips rows that another replica has locked.
            const SQL: &str = "/* purge */ DELETE FROM revocations WHERE number IN (
                    SELECT number FROM revocations WHERE expires_at_ms < $1 AND kind <> 2
                    ORDER BY expires_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
            self.0.execute(SQL, &[&expired_before_ms, &i64::from(limit)]).await
        })
    }

    fn shorten(&self, latest_ms: i64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const SQL: &str =
                "/* shorten */ UPDATE revocations SET expires_at_ms = $1 WHERE expires_at_ms > $1 AND kind <> 2";
            self.0.execute(SQL, &[&latest_ms]).await
        })
    }
}

async fn revoke(client: &mut Client, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> Result<Revocation> {
    const FIND: &str =
        "/* revoke */ SELECT number, session_id, user_id, expires_at_ms, kind, not_before_s, except_session_id, FALSE
        FROM revocations WHERE session_id = $1";
    const LATEST: &str = "/* revoke */ SELECT token_expires_at_ms FROM sessions WHERE id = $1 FOR UPDATE";
    let list = List::prepare(client).await?;
    let [find, latest] = prepare_all(client, [FIND, LATEST]).await?;
    let transaction = client.transaction().await?;
    let head = list.lock(&transaction).await?;
    if let Some(row) = transaction.query_opt(&find, &[&session_id]).await? {
        return Ok(revocation(&row));
    }
    let latest = transaction.query_opt(&latest, &[&session_id]).await?.map_or(0, |row| row.get::<_, i64>(0));
    let expires_at_ms = expires_at_ms.max(latest);
    list.append_sessions(&transaction, head, user_id, &[(session_id, expires_at_ms)]).await?;
    transaction.commit().await?;
    Ok(Revocation { number: head as u64 + 1, scope: Scope::Session(session_id), expires_at_ms })
}

pub(super) fn revocation(row: &Row) -> Revocation {
    Revocation {
        number: row.get::<_, i64>(0) as u64,
        scope: Scope::of(row.get(4), row.get(1), row.get(2), row.get(5), row.get(6), row.get(7)),
        expires_at_ms: row.get(3),
    }
}

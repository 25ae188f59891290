//! Sessions on Postgres.

use confab_common::Result;
use confab_common::pg::Client;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use uuid::Uuid;

use super::audit::Record;
use super::list::List;
use super::revocations::revocation;
use super::{Postgres, prepare_all, user};
use crate::store::{
    Chain, Cut, Entry, MAX_SESSIONS, NewSession, Opened, Revocation, Rotated, Rotation, Seen, SessionStore, State,
    Step, StoredSession, User, wrong_credentials,
};

impl SessionStore for Postgres {
    fn open_session(&self, session: NewSession, verified_hash: String) -> BoxFuture<'_, Result<Opened>> {
        Box::pin(async move { self.0.run(async |client| open(client, &session, &verified_hash).await).await })
    }

    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Rotated>> {
        Box::pin(async move { self.0.run(async |client| rotate(client, &rotation).await).await })
    }

    fn sessions(&self, user_id: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Vec<StoredSession>>> {
        Box::pin(async move {
            const SQL: &str =
                "/* sessions */ SELECT id, created_at_ms, last_seen_at_ms, user_agent, address FROM sessions
                WHERE user_id = $1 AND expires_at_ms > $2 ORDER BY last_seen_at_ms DESC, id DESC LIMIT $3";
            Ok(self.0.query(SQL, &[&user_id, &now_ms, &i64::from(MAX_SESSIONS)]).await?.iter().map(stored).collect())
        })
    }

    fn end_session(&self, user_id: Uuid, id: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Option<Revocation>>> {
        Box::pin(async move { self.0.run(async |client| end_session(client, user_id, id, now_ms).await).await })
    }

    fn end_sessions(
        &self,
        user_id: Uuid,
        cut: Cut,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>> {
        Box::pin(
            async move { self.0.run(async |client| end_sessions(client, user_id, cut, entry.as_ref()).await).await },
        )
    }

    fn purge_sessions(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const SQL: &str = "/* purge_sessions */ DELETE FROM sessions WHERE id IN (
                    SELECT id FROM sessions WHERE expires_at_ms < $1 ORDER BY expires_at_ms LIMIT $2
                    FOR UPDATE SKIP LOCKED)";
            self.0.execute(SQL, &[&expired_before_ms, &i64::from(limit)]).await
        })
    }
}

async fn open(client: &mut Client, session: &NewSession, verified_hash: &str) -> Result<Opened> {
    // The lock makes concurrent sessions of one user count one another.
    const LOCK: &str = "/* open_session */ SELECT state, password_hash, tokens_from_s FROM users WHERE id = $1
        FOR NO KEY UPDATE";
    const OLDEST: &str = "/* open_session */ SELECT id FROM sessions WHERE user_id = $1 AND expires_at_ms > $2
        ORDER BY created_at_ms DESC, id DESC OFFSET $3";
    const INSERT: &str = "/* open_session */ INSERT INTO sessions (id, user_id, created_at_ms, last_seen_at_ms,
            expires_at_ms, token_expires_at_ms, user_agent, address, refresh_sha256)
        VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8)";
    let NewSession { id, user_id, created_at_ms, token_expires_at_ms, refresh, seen, entry } = session;
    let record = Record::prepare(client, entry.as_ref()).await?;
    let list = List::prepare(client).await?;
    let [lock, oldest, insert] = prepare_all(client, [LOCK, OLDEST, INSERT]).await?;
    let transaction = client.transaction().await?;
    let row = transaction.query_opt(&lock, &[user_id]).await?.ok_or_else(wrong_credentials)?;
    User::may_open(State::of(row.get(0)), row.get(1), verified_hash)?;
    let tokens_from_s = row.get(2);
    let rows = transaction.query(&oldest, &[user_id, created_at_ms, &i64::from(MAX_SESSIONS - 1)]).await?;
    let ids = rows.iter().map(|row| row.get(0)).collect::<Vec<Uuid>>();
    let revoked =
        if ids.is_empty() { Vec::new() } else { list.end(&transaction, *user_id, Some(&ids), None, &[]).await? };
    let (expires_at_ms, refresh) = (session.expires_at_ms(), refresh.map(|refresh| refresh.token_sha256.to_vec()));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
        [id, user_id, created_at_ms, &expires_at_ms, token_expires_at_ms, &seen.user_agent, &seen.address, &refresh];
    transaction.execute(&insert, &values).await?;
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(Opened { revoked, tokens_from_s })
}

async fn rotate(client: &mut Client, rotation: &Rotation) -> Result<Rotated> {
    // The lock makes concurrent uses of one token take turns.
    const LOCK: &str = "/* rotate */ SELECT user_id, refresh_sha256, previous_sha256, used_at_ms, last_seen_at_ms,
            token_expires_at_ms
        FROM sessions WHERE id = $1 AND expires_at_ms > $2 AND refresh_sha256 IS NOT NULL FOR UPDATE";
    const USER: &str = concat!("/* rotate */ SELECT ", user_columns!(), " FROM users WHERE id = $1");
    const ADVANCE: &str = "/* rotate */ UPDATE sessions SET previous_sha256 = refresh_sha256, refresh_sha256 = $2,
            generation = generation + 1, used_at_ms = $3
        WHERE id = $1";
    const TOUCH: &str = "/* rotate */ UPDATE sessions SET last_seen_at_ms = $2,
            expires_at_ms = greatest(expires_at_ms, $3, $4), token_expires_at_ms = greatest(token_expires_at_ms, $4),
            user_agent = $5, address = $6
        WHERE id = $1";
    let [lock, read, advance, touch] = prepare_all(client, [LOCK, USER, ADVANCE, TOUCH]).await?;
    let Rotation { session_id, now_ms, expires_at_ms, token_expires_at_ms, seen, .. } = rotation;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(&lock, &[session_id, now_ms]).await? else { return Ok(Rotated::Unknown) };
    let user_id = row.get::<_, Uuid>(0);
    let step = rotation.step(Chain { newest: row.get(1), previous: row.get(2), used_at_ms: row.get(3) });
    let key = match step {
        Step::Advance => 0,
        Step::Repeat(key) => key,
        Step::Reuse => return Ok(Rotated::Reused { user_id, token_expires_at_ms: row.get(5) }),
        Step::Unknown => return Ok(Rotated::Unknown),
    };
    let user = transaction.query_opt(&read, &[&user_id]).await?.map(|row| user(&row));
    let Some(user) = user.filter(|user| user.state == State::Active) else { return Ok(Rotated::Unknown) };
    if step == Step::Advance {
        transaction.execute(&advance, &[session_id, &rotation.successor(key), now_ms]).await?;
    }
    let last_seen_at_ms = rotation.last_seen_at_ms(row.get(4), step);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [session_id, &last_seen_at_ms, expires_at_ms, token_expires_at_ms, &seen.user_agent, &seen.address];
    transaction.execute(&touch, &values).await?;
    transaction.commit().await?;
    Ok(Rotated::Next { key, user: Box::new(user) })
}

async fn end_session(client: &mut Client, user_id: Uuid, id: Uuid, now_ms: i64) -> Result<Option<Revocation>> {
    const FIND: &str = "/* end_session */ SELECT number, session_id, user_id, expires_at_ms, kind, not_before_s,
            except_session_id, FALSE
        FROM revocations WHERE session_id = $1 AND user_id = $2 AND kind = 0";
    const SESSION: &str = "/* end_session */ SELECT token_expires_at_ms FROM sessions
        WHERE id = $1 AND user_id = $2 AND expires_at_ms > $3 FOR UPDATE";
    let list = List::prepare(client).await?;
    let [find, session] = prepare_all(client, [FIND, SESSION]).await?;
    let transaction = client.transaction().await?;
    let head = list.lock(&transaction).await?;
    if let Some(row) = transaction.query_opt(&find, &[&id, &user_id]).await? {
        return Ok(Some(revocation(&row)));
    }
    let Some(row) = transaction.query_opt(&session, &[&id, &user_id, &now_ms]).await? else { return Ok(None) };
    let ended = list.append_sessions(&transaction, head, user_id, &[(id, row.get(0))]).await?;
    transaction.commit().await?;
    Ok(ended.into_iter().next())
}

async fn end_sessions(
    client: &mut Client,
    user_id: Uuid,
    cut: Cut,
    entry: Option<&Entry>,
) -> Result<Option<Vec<Revocation>>> {
    const UPDATE: &str = "/* end_sessions */ UPDATE users SET tokens_from_s = greatest(tokens_from_s, $2)
        WHERE id = $1 AND state <> $3";
    let record = Record::prepare(client, entry).await?;
    let list = List::prepare(client).await?;
    let [update] = prepare_all(client, [UPDATE]).await?;
    let transaction = client.transaction().await?;
    let deleted = State::Deleted.number();
    if transaction.execute(&update, &[&user_id, &cut.not_before_s, &deleted]).await? == 0 {
        return Ok(None);
    }
    let scopes = [(cut.scope(user_id), cut.expires_at_ms)];
    let ended = list.end(&transaction, user_id, None, cut.except, &scopes).await?;
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(Some(ended))
}

fn stored(row: &Row) -> StoredSession {
    StoredSession {
        id: row.get(0),
        created_at_ms: row.get(1),
        last_seen_at_ms: row.get(2),
        seen: Seen { user_agent: row.get(3), address: row.get(4) },
    }
}

//! Invites and password resets on Postgres.

use confab_common::Result;
use confab_common::pg::Client;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::audit::Record;
use super::list::List;
use super::{Postgres, prepare_all};
use crate::store::{Cut, Invite, InviteStore, PasswordReset, Redeemed, Sha256, State};

impl InviteStore for Postgres {
    fn create_invite(&self, invite: Invite, max: u32) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { self.0.run(async |client| create_invite(client, &invite, max).await).await })
    }

    fn has_invite(&self, code_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            const SQL: &str = "/* has_invite */ SELECT 1 FROM invites
                WHERE code_sha256 = $1 AND uses_left > 0 AND expires_at_ms > $2";
            Ok(!self.0.query(SQL, &[&&code_sha256[..], &now_ms]).await?.is_empty())
        })
    }

    fn create_reset(&self, reset: PasswordReset) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            const SQL: &str = "/* create_reset */ INSERT INTO password_resets
                    (user_id, token_sha256, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4)
                ON CONFLICT (user_id) DO UPDATE SET token_sha256 = excluded.token_sha256,
                    created_at_ms = excluded.created_at_ms, expires_at_ms = excluded.expires_at_ms, used_at_ms = NULL";
            let PasswordReset { user_id, token_sha256, created_at_ms, expires_at_ms } = &reset;
            self.0.execute(SQL, &[user_id, &&token_sha256[..], created_at_ms, expires_at_ms]).await.map(drop)
        })
    }

    fn reset_user(&self, token_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<Option<Uuid>>> {
        Box::pin(async move {
            const SQL: &str = "/* reset_user */ SELECT user_id FROM password_resets
                WHERE token_sha256 = $1 AND used_at_ms IS NULL AND expires_at_ms > $2";
            Ok(self.0.query(SQL, &[&&token_sha256[..], &now_ms]).await?.first().map(|row| row.get(0)))
        })
    }

    fn redeem_reset(
        &self,
        token_sha256: Sha256,
        password_hash: String,
        now_ms: i64,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Redeemed>>> {
        Box::pin(async move {
            self.0.run(async |client| redeem(client, &token_sha256, &password_hash, now_ms, cut).await).await
        })
    }

    fn purge_secrets(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const INVITES: &str = "/* purge_secrets */ DELETE FROM invites WHERE id IN (
                    SELECT id FROM invites WHERE expires_at_ms < $1 OR uses_left = 0 LIMIT $2 FOR UPDATE SKIP LOCKED)";
            const RESETS: &str = "/* purge_secrets */ DELETE FROM password_resets WHERE user_id IN (
                    SELECT user_id FROM password_resets WHERE expires_at_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let limit = i64::from(limit);
            Ok(self.0.execute(INVITES, &[&now_ms, &limit]).await? + self.0.execute(RESETS, &[&now_ms, &limit]).await?)
        })
    }
}

async fn create_invite(client: &mut Client, invite: &Invite, max: u32) -> Result<bool> {
    // Signups, which take uses, wait for this lock.
    const LOCK: &str = "/* create_invite */ LOCK TABLE invites IN SHARE ROW EXCLUSIVE MODE";
    const INSERT: &str =
        "/* create_invite */ INSERT INTO invites (id, code_sha256, uses_left, created_at_ms, expires_at_ms)
        SELECT $1::uuid, $2::bytea, $3::bigint, $4::bigint, $5::bigint
        WHERE (SELECT count(*) FROM invites WHERE uses_left > 0 AND expires_at_ms > $4) < $6::bigint";
    let Invite { id, code_sha256, uses, created_at_ms, expires_at_ms, entry } = invite;
    let record = Record::prepare(client, entry.as_ref()).await?;
    let [insert] = prepare_all(client, [INSERT]).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    let (uses, max) = (i64::from(*uses), i64::from(max));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [id, &&code_sha256[..], &uses, created_at_ms, expires_at_ms, &max];
    let inserted = transaction.execute(&insert, &values).await? == 1;
    if inserted {
        record.write(&transaction).await?;
    }
    transaction.commit().await?;
    Ok(inserted)
}

async fn redeem(
    client: &mut Client,
    token_sha256: &Sha256,
    password_hash: &str,
    now_ms: i64,
    cut: Cut,
) -> Result<Option<Redeemed>> {
    const FIND: &str = "/* redeem_reset */ SELECT user_id FROM password_resets WHERE token_sha256 = $1";
    const SET: &str = "/* redeem_reset */ UPDATE users
        SET password_hash = $2, tokens_from_s = greatest(tokens_from_s, $3) WHERE id = $1 AND state <> $4";
    const USE: &str = "/* redeem_reset */ UPDATE password_resets SET used_at_ms = $2
        WHERE token_sha256 = $1 AND used_at_ms IS NULL AND expires_at_ms > $2";
    let list = List::prepare(client).await?;
    let [find, set, take] = prepare_all(client, [FIND, SET, USE]).await?;
    let transaction = client.transaction().await?;
    let token: &[u8] = token_sha256;
    let Some(row) = transaction.query_opt(&find, &[&token]).await? else { return Ok(None) };
    let user_id = row.get::<_, Uuid>(0);
    // The row of the user is locked first, as in a deletion.
    let deleted = State::Deleted.number();
    let is_set = transaction.execute(&set, &[&user_id, &password_hash, &cut.not_before_s, &deleted]).await? == 1;
    if !is_set || transaction.execute(&take, &[&token, &now_ms]).await? == 0 {
        return Ok(None);
    }
    let scopes = [(cut.scope(user_id), cut.expires_at_ms)];
    let ended = list.end(&transaction, user_id, None, cut.except, &scopes).await?;
    transaction.commit().await?;
    Ok(Some((user_id, ended)))
}

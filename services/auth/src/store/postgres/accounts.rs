//! Accounts on Postgres.

use confab_common::operations::Operations;
use confab_common::pg::Client;
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::audit::Record;
use super::list::List;
use super::{Postgres, UPDATE_PROFILE, prepare_all, update_profile, user};
use crate::store::{
    AccountStore, Claimed, Cut, DELETED, Deletion, Entry, Leaving, ProfileChange, Revocation, Scope, Sha256, State,
    User, is_deleted, name_taken, no_invite,
};
use crate::username;

pub const LOCK: &str =
    concat!("/* lock_user */ SELECT ", user_columns!(), " FROM users WHERE id = $1 FOR NO KEY UPDATE");

impl AccountStore for Postgres {
    fn create_user(
        &self,
        user: User,
        skeleton: String,
        invite: Option<(Sha256, i64)>,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<User>> {
        Box::pin(async move {
            let insert = async |client: &mut Client| create(client, &user, &skeleton, invite, entry.as_ref()).await;
            if self.0.run(insert).await? {
                return Ok(user);
            }
            self.user(user.id).await?.ok_or_else(name_taken)
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
            const SQL: &str = concat!("/* user */ SELECT ", user_columns!(), " FROM users WHERE id = $1");
            Ok(self.0.query(SQL, &[&id]).await?.first().map(user))
        })
    }

    fn user_by_name(&self, folded: String) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            const SQL: &str =
                concat!("/* user_by_name */ SELECT ", user_columns!(), " FROM users WHERE username_folded = $1");
            Ok(self.0.query(SQL, &[&folded]).await?.first().map(user))
        })
    }

    fn change_claims(&self, id: Uuid, claimed: Claimed, latest_ms: i64) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move {
            const SQL: &str = concat!(
                "/* change_claims */ UPDATE users
                SET issuer = $5, claimed_name = $2, claimed_picture = $3, claimed_at_ms = $4,
                    shown_name = CASE WHEN display_name IS NULL THEN $2 ELSE shown_name END,
                    shown_folded = CASE WHEN display_name IS NULL THEN $8 ELSE shown_folded END
                WHERE id = $1 AND (issuer IS NULL OR issuer = $5) AND state <> $6 AND claimed_at_ms <= $7
                RETURNING ",
                user_columns!()
            );
            let Claimed { issuer, name, picture, changed_at_ms } = claimed;
            let (deleted, folded) = (State::Deleted.number(), name.as_deref().map(username::folded));
            let values: [&(dyn ToSql + Sync); 8] =
                [&id, &name, &picture, &changed_at_ms, &issuer, &deleted, &latest_ms, &folded];
            Ok(self.0.query(SQL, &values).await?.first().map(user))
        })
    }

    fn change_profile(&self, id: Uuid, change: ProfileChange) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(async move { self.0.run(async |client| change_profile(client, id, change).await).await })
    }

    fn change_password(
        &self,
        id: Uuid,
        before: String,
        after: String,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>> {
        Box::pin(
            async move { self.0.run(async |client| change_password(client, id, &before, &after, cut).await).await },
        )
    }

    fn suspend(&self, id: Uuid, entry: Option<Entry>) -> BoxFuture<'_, Result<Vec<Revocation>>> {
        Box::pin(async move {
            let entry = entry.as_ref();
            self.0.run(async |client| set_state(client, id, State::Suspended, i64::MAX, entry).await).await
        })
    }

    fn restore(&self, id: Uuid, expires_at_ms: i64, entry: Option<Entry>) -> BoxFuture<'_, Result<Option<Revocation>>> {
        Box::pin(async move {
            let entry = entry.as_ref();
            let restore = async |client: &mut Client| set_state(client, id, State::Active, expires_at_ms, entry).await;
            Ok(self.0.run(restore).await?.into_iter().next())
        })
    }

    fn delete_user(&self, deletion: Deletion) -> BoxFuture<'_, Result<Vec<Revocation>>> {
        Box::pin(async move { self.0.run(async |client| delete(client, &deletion).await).await })
    }

    fn free_names(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // A replica of the version before frees a reserved name, too, but keeps its row.
            const UNRESERVE: &str = "/* free_names */ DELETE FROM users
                WHERE id IN (SELECT id FROM users WHERE name_of IS NOT NULL AND coalesce(free_name_at_ms, 0) < $1
                    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
            // No name contains a colon.
            const SQL: &str = "/* free_names */ UPDATE users SET free_name_at_ms = NULL,
                    username_folded = 'deleted:' || id::text, username_skeleton = 'deleted:' || id::text
                WHERE id IN (SELECT id FROM users WHERE free_name_at_ms < $1
                    ORDER BY free_name_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let unreserved = self.0.execute(UNRESERVE, &[&now_ms, &i64::from(limit)]).await?;
            Ok(unreserved + self.0.execute(SQL, &[&now_ms, &i64::from(limit)]).await?)
        })
    }

    fn leaving(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Leaving>>> {
        Box::pin(async move {
            const SQL: &str =
                "/* leaving */ SELECT user_id, username FROM leaving WHERE user_id > $1 ORDER BY user_id LIMIT $2";
            let rows = self.0.query(SQL, &[&after, &i64::from(limit)]).await?;
            Ok(rows.iter().map(|row| Leaving { user_id: row.get(0), username: row.get(1) }).collect())
        })
    }

    fn operations(&self) -> &dyn Operations {
        &self.0
    }

    fn has_left(&self, user_id: Uuid) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.execute("/* has_left */ DELETE FROM leaving WHERE user_id = $1", &[&user_id]).await.map(drop)
        })
    }
}

/// Inserts an account; `false` when its id or its name is in use.
async fn create(
    client: &mut Client,
    user: &User,
    skeleton: &str,
    invite: Option<(Sha256, i64)>,
    entry: Option<&Entry>,
) -> Result<bool> {
    const INSERT: &str =
        "/* create_user */ INSERT INTO users (id, username, username_folded, password_hash, created_at_ms,
            username_skeleton, display_name, avatar_file_id, data, issuer, claimed_name, claimed_picture, claimed_at_ms,
            shown_name, shown_folded)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING";
    const TAKE: &str = "/* create_user */ UPDATE invites SET uses_left = uses_left - 1
        WHERE code_sha256 = $1 AND uses_left > 0 AND expires_at_ms > $2";
    let record = Record::prepare(client, entry).await?;
    let [insert, take] = prepare_all(client, [INSERT, TAKE]).await?;
    let transaction = client.transaction().await?;
    let User { id, username, username_folded, password_hash, created_at_ms, profile, claimed, .. } = user;
    let claimed = claimed.as_ref();
    let values: [&(dyn ToSql + Sync); 15] = [
        id,
        username,
        username_folded,
        password_hash,
        created_at_ms,
        &skeleton,
        &profile.display_name,
        &profile.avatar_file_id,
        &profile.data,
        &claimed.map(|claimed| &claimed.issuer),
        &claimed.and_then(|claimed| claimed.name.as_ref()),
        &claimed.and_then(|claimed| claimed.picture.as_ref()),
        &claimed.map_or(0, |claimed| claimed.changed_at_ms),
        &user.shown_name(),
        &user.shown_folded(),
    ];
    if transaction.execute(&insert, &values).await? == 0 {
        return Ok(false);
    }
    if let Some((code, now_ms)) = invite
        && transaction.execute(&take, &[&&code[..], &now_ms]).await? == 0
    {
        return Err(no_invite());
    }
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn change_profile(client: &mut Client, id: Uuid, change: ProfileChange) -> Result<Option<User>> {
    let [lock, update] = prepare_all(client, [LOCK, UPDATE_PROFILE]).await?;
    let transaction = client.transaction().await?;
    let Some(row) = transaction.query_opt(&lock, &[&id]).await? else { return Ok(None) };
    let mut user = user(&row);
    if user.state == State::Deleted {
        return Ok(None);
    }
    user.profile = change.apply(user.profile);
    update_profile(&transaction, &update, &user).await?;
    transaction.commit().await?;
    Ok(Some(user))
}

async fn change_password(
    client: &mut Client,
    id: Uuid,
    before: &str,
    after: &str,
    cut: Cut,
) -> Result<Option<Vec<Revocation>>> {
    const UPDATE: &str = "/* change_password */ UPDATE users
        SET password_hash = $2, tokens_from_s = greatest(tokens_from_s, $3) WHERE id = $1";
    let list = List::prepare(client).await?;
    let [lock, update] = prepare_all(client, [LOCK, UPDATE]).await?;
    let transaction = client.transaction().await?;
    let user = transaction.query_opt(&lock, &[&id]).await?.map(|row| user(&row));
    let Some(user) = user.filter(|user| user.state != State::Deleted && user.password_hash == before) else {
        return Ok(None);
    };
    transaction.execute(&update, &[&id, &after, &cut.not_before_s]).await?;
    let scopes = [(cut.scope(user.id), cut.expires_at_ms)];
    let ended = list.end(&transaction, id, None, cut.except, &scopes).await?;
    transaction.commit().await?;
    Ok(Some(ended))
}

/// Suspends or restores an account, and returns the revocations: none when it has that state already.
async fn set_state(
    client: &mut Client,
    id: Uuid,
    state: State,
    expires_at_ms: i64,
    entry: Option<&Entry>,
) -> Result<Vec<Revocation>> {
    const UPDATE: &str = "/* set_state */ UPDATE users SET state = $2 WHERE id = $1";
    let record = Record::prepare(client, entry).await?;
    let list = List::prepare(client).await?;
    let [lock, update] = prepare_all(client, [LOCK, UPDATE]).await?;
    let transaction = client.transaction().await?;
    let user = transaction.query_opt(&lock, &[&id]).await?.map(|row| user(&row));
    match user.ok_or_else(|| Error::not_found("user"))?.state {
        State::Deleted => return Err(is_deleted()),
        now if now == state => return Ok(Vec::new()),
        _ => {}
    }
    transaction.execute(&update, &[&id, &state.number()]).await?;
    let blocked = Scope::Blocked { user_id: id, deleted: false };
    let scope = if state == State::Active { Scope::Unblocked { user_id: id } } else { blocked };
    let ended = list.end(&transaction, id, None, None, &[(scope, expires_at_ms)]).await?;
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(ended)
}

async fn delete(client: &mut Client, deletion: &Deletion) -> Result<Vec<Revocation>> {
    const UPDATE: &str = "/* delete_user */ UPDATE users SET state = $2, username = $3, password_hash = $4,
            display_name = NULL, avatar_file_id = NULL, data = '{}', claimed_name = NULL, claimed_picture = NULL,
            shown_name = NULL, shown_folded = NULL, free_name_at_ms = $5
        WHERE id = $1";
    const LEAVE: &str = "/* delete_user */ INSERT INTO leaving (user_id, username, created_at_ms) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING";
    const FORGET: &str = "/* delete_user */ DELETE FROM password_resets WHERE user_id = $1";
    let Deletion { id, password_hash, now_ms, free_name_at_ms, entry } = deletion;
    let record = Record::prepare(client, entry.as_ref()).await?;
    let list = List::prepare(client).await?;
    let [lock, update, leave, forget] = prepare_all(client, [LOCK, UPDATE, LEAVE, FORGET]).await?;
    let transaction = client.transaction().await?;
    let user = transaction.query_opt(&lock, &[id]).await?.map(|row| user(&row));
    let user = user.ok_or_else(|| Error::not_found("user"))?;
    if user.state == State::Deleted {
        return Ok(Vec::new());
    }
    let state = State::Deleted.number();
    transaction.execute(&update, &[id, &state, &DELETED, password_hash, free_name_at_ms]).await?;
    transaction.execute(&leave, &[id, &user.username, now_ms]).await?;
    transaction.execute(&forget, &[id]).await?;
    let scopes = [(Scope::Blocked { user_id: *id, deleted: true }, i64::MAX)];
    let ended = list.end(&transaction, *id, None, None, &scopes).await?;
    record.write(&transaction).await?;
    transaction.commit().await?;
    Ok(ended)
}

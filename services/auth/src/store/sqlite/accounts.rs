//! Accounts on SQLite.

use confab_common::operations::Operations;
use confab_common::{Error, Result};
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::audit::record;
use super::{Sqlite, id, list, update_profile, user, user_by_id};
use crate::store::{
    AccountStore, Claimed, Cut, DELETED, Deletion, Entry, Leaving, ProfileChange, Revocation, Scope, Sha256, State,
    User, is_deleted, name_taken, no_invite,
};
use crate::username;

impl AccountStore for Sqlite {
    fn create_user(
        &self,
        user: User,
        skeleton: String,
        invite: Option<(Sha256, i64)>,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<User>> {
        Box::pin(self.0.write(move |connection| {
            const TAKE: &str = "/* create_user */ UPDATE invites SET uses_left = uses_left - 1
                WHERE code_sha256 = ?1 AND uses_left > 0 AND expires_at_ms > ?2";
            if !insert(connection, &user, &skeleton)? {
                return user_by_id(connection, user.id)?.ok_or_else(name_taken);
            }
            if let Some((code, now_ms)) = invite
                && connection.prepare_cached(TAKE)?.execute(params![code, now_ms])? == 0
            {
                // Rolls back the insertion.
                return Err(no_invite());
            }
            record(connection, entry.as_ref())?;
            Ok(user)
        }))
    }

    fn without_skeleton(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<(Uuid, String)>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* without_skeleton */ SELECT id, username FROM users
                WHERE username_skeleton IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
            let named = |row: &Row<'_>| Ok((id(row, 0)?, row.get(1)?));
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
            const SQL: &str =
                concat!("/* user_by_name */ SELECT ", user_columns!(), " FROM users WHERE username_folded = ?1");
            Ok(connection.prepare_cached(SQL)?.query_row([folded], user).optional()?)
        }))
    }

    fn change_claims(&self, id: Uuid, claimed: Claimed, latest_ms: i64) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = concat!(
                "/* change_claims */ UPDATE users
                SET issuer = ?5, claimed_name = ?2, claimed_picture = ?3, claimed_at_ms = ?4,
                    shown_name = CASE WHEN display_name IS NULL THEN ?2 ELSE shown_name END,
                    shown_folded = CASE WHEN display_name IS NULL THEN ?8 ELSE shown_folded END
                WHERE id = ?1 AND (issuer IS NULL OR issuer = ?5) AND state <> ?6 AND claimed_at_ms <= ?7
                RETURNING ",
                user_columns!()
            );
            let Claimed { issuer, name, picture, changed_at_ms } = claimed;
            let (deleted, folded) = (State::Deleted.number(), name.as_deref().map(username::folded));
            let mut update = connection.prepare_cached(SQL)?;
            let values = (id.into_bytes(), name, picture, changed_at_ms, issuer, deleted, latest_ms, folded);
            Ok(update.query_row(values, user).optional()?)
        }))
    }

    fn change_profile(&self, id: Uuid, change: ProfileChange) -> BoxFuture<'_, Result<Option<User>>> {
        Box::pin(self.0.write(move |connection| {
            let Some(mut user) = present(connection, id)? else { return Ok(None) };
            user.profile = change.apply(user.profile);
            update_profile(connection, &user)?;
            Ok(Some(user))
        }))
    }

    fn change_password(
        &self,
        id: Uuid,
        before: String,
        after: String,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>> {
        Box::pin(self.0.write(move |connection| {
            const UPDATE: &str = "/* change_password */ UPDATE users
                SET password_hash = ?2, tokens_from_s = max(tokens_from_s, ?3) WHERE id = ?1";
            if present(connection, id)?.is_none_or(|user| user.password_hash != before) {
                return Ok(None);
            }
            connection.prepare_cached(UPDATE)?.execute(params![id.into_bytes(), after, cut.not_before_s])?;
            list::end(connection, id, cut.except, &[(cut.scope(id), cut.expires_at_ms)]).map(Some)
        }))
    }

    fn suspend(&self, id: Uuid, entry: Option<Entry>) -> BoxFuture<'_, Result<Vec<Revocation>>> {
        let suspend =
            move |connection: &Connection| set_state(connection, id, State::Suspended, i64::MAX, entry.as_ref());
        Box::pin(self.0.write(suspend))
    }

    fn restore(&self, id: Uuid, expires_at_ms: i64, entry: Option<Entry>) -> BoxFuture<'_, Result<Option<Revocation>>> {
        Box::pin(self.0.write(move |connection| {
            let restored = set_state(connection, id, State::Active, expires_at_ms, entry.as_ref())?;
            Ok(restored.into_iter().next())
        }))
    }

    fn delete_user(&self, deletion: Deletion) -> BoxFuture<'_, Result<Vec<Revocation>>> {
        Box::pin(self.0.write(move |connection| delete(connection, &deletion)))
    }

    fn free_names(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const UNRESERVE: &str = "/* free_names */ DELETE FROM users
                WHERE id IN (SELECT id FROM users WHERE name_of IS NOT NULL AND coalesce(free_name_at_ms, 0) < ?1
                    ORDER BY id LIMIT ?2)";
            // No name contains a colon.
            const SQL: &str = "/* free_names */ UPDATE users SET free_name_at_ms = NULL,
                    username_folded = 'deleted:' || lower(hex(id)), username_skeleton = 'deleted:' || lower(hex(id))
                WHERE id IN (SELECT id FROM users WHERE free_name_at_ms < ?1 ORDER BY free_name_at_ms LIMIT ?2)";
            let unreserved = connection.prepare_cached(UNRESERVE)?.execute(params![now_ms, limit])?;
            Ok((unreserved + connection.prepare_cached(SQL)?.execute(params![now_ms, limit])?) as u64)
        }))
    }

    fn leaving(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Leaving>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str =
                "/* leaving */ SELECT user_id, username FROM leaving WHERE user_id > ?1 ORDER BY user_id LIMIT ?2";
            let leaving = |row: &Row<'_>| Ok(Leaving { user_id: id(row, 0)?, username: row.get(1)? });
            Ok(connection
                .prepare_cached(SQL)?
                .query_map(params![after.into_bytes(), limit], leaving)?
                .collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn operations(&self) -> &dyn Operations {
        &self.0
    }

    fn has_left(&self, user_id: Uuid) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* has_left */ DELETE FROM leaving WHERE user_id = ?1";
            connection.prepare_cached(SQL)?.execute([user_id.into_bytes()])?;
            Ok(())
        }))
    }
}

/// Inserts an account; `false` when its id or its name is in use.
fn insert(connection: &Connection, user: &User, skeleton: &str) -> Result<bool> {
    const SQL: &str =
        "/* create_user */ INSERT INTO users (id, username, username_folded, password_hash, created_at_ms,
            username_skeleton, display_name, avatar_file_id, data, issuer, claimed_name, claimed_picture, claimed_at_ms,
            shown_name, shown_folded)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING";
    let claimed = user.claimed.as_ref();
    let inserted = connection.prepare_cached(SQL)?.execute(params![
        user.id.into_bytes(),
        user.username,
        user.username_folded,
        user.password_hash,
        user.created_at_ms,
        skeleton,
        user.profile.display_name,
        user.profile.avatar_file_id.map(Uuid::into_bytes),
        user.profile.data,
        claimed.map(|claimed| &claimed.issuer),
        claimed.and_then(|claimed| claimed.name.as_ref()),
        claimed.and_then(|claimed| claimed.picture.as_ref()),
        claimed.map_or(0, |claimed| claimed.changed_at_ms),
        user.shown_name(),
        user.shown_folded()
    ])?;
    Ok(inserted == 1)
}

/// Returns an account that is not deleted.
fn present(connection: &Connection, id: Uuid) -> Result<Option<User>> {
    Ok(user_by_id(connection, id)?.filter(|user| user.state != State::Deleted))
}

/// Suspends or restores an account, and returns the revocations: none when it has that state already.
fn set_state(
    connection: &Connection,
    id: Uuid,
    state: State,
    expires_at_ms: i64,
    entry: Option<&Entry>,
) -> Result<Vec<Revocation>> {
    const UPDATE: &str = "/* set_state */ UPDATE users SET state = ?2 WHERE id = ?1";
    match user_by_id(connection, id)?.ok_or_else(|| Error::not_found("user"))?.state {
        State::Deleted => return Err(is_deleted()),
        now if now == state => return Ok(Vec::new()),
        _ => {}
    }
    connection.prepare_cached(UPDATE)?.execute(params![id.into_bytes(), state.number()])?;
    record(connection, entry)?;
    let blocked = Scope::Blocked { user_id: id, deleted: false };
    let scope = if state == State::Active { Scope::Unblocked { user_id: id } } else { blocked };
    list::end(connection, id, None, &[(scope, expires_at_ms)])
}

fn delete(connection: &Connection, deletion: &Deletion) -> Result<Vec<Revocation>> {
    const UPDATE: &str = "/* delete_user */ UPDATE users SET state = ?2, username = ?3, password_hash = ?4,
            display_name = NULL, avatar_file_id = NULL, data = '{}', claimed_name = NULL, claimed_picture = NULL,
            shown_name = NULL, shown_folded = NULL, free_name_at_ms = ?5
        WHERE id = ?1";
    const LEAVE: &str = "/* delete_user */ INSERT INTO leaving (user_id, username, created_at_ms) VALUES (?1, ?2, ?3)
        ON CONFLICT DO NOTHING";
    const FORGET: &str = "/* delete_user */ DELETE FROM password_resets WHERE user_id = ?1";
    let Deletion { id, password_hash, now_ms, free_name_at_ms, entry } = deletion;
    let user = user_by_id(connection, *id)?.ok_or_else(|| Error::not_found("user"))?;
    if user.state == State::Deleted {
        return Ok(Vec::new());
    }
    let (key, state) = (id.into_bytes(), State::Deleted.number());
    connection.prepare_cached(UPDATE)?.execute(params![key, state, DELETED, password_hash, free_name_at_ms])?;
    connection.prepare_cached(LEAVE)?.execute(params![key, user.username, now_ms])?;
    connection.prepare_cached(FORGET)?.execute([key])?;
    record(connection, entry.as_ref())?;
    list::end(connection, *id, None, &[(Scope::Blocked { user_id: *id, deleted: true }, i64::MAX)])
}

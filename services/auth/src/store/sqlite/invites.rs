//! Invites and password resets on SQLite.

use confab_common::Result;
use futures::future::BoxFuture;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::audit::record;
use super::{Sqlite, id, list};
use crate::store::{Cut, Invite, InviteStore, PasswordReset, Redeemed, Sha256, State};

impl InviteStore for Sqlite {
    fn create_invite(&self, invite: Invite, max: u32) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str =
                "/* create_invite */ INSERT INTO invites (id, code_sha256, uses_left, created_at_ms, expires_at_ms)
                SELECT ?1, ?2, ?3, ?4, ?5
                WHERE (SELECT count(*) FROM invites WHERE uses_left > 0 AND expires_at_ms > ?4) < ?6";
            let Invite { id, code_sha256, uses, created_at_ms, expires_at_ms, entry } = &invite;
            let values = params![id.into_bytes(), code_sha256, uses, created_at_ms, expires_at_ms, max];
            if connection.prepare_cached(SQL)?.execute(values)? == 0 {
                return Ok(false);
            }
            record(connection, entry.as_ref())?;
            Ok(true)
        }))
    }

    fn has_invite(&self, code_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* has_invite */ SELECT 1 FROM invites
                WHERE code_sha256 = ?1 AND uses_left > 0 AND expires_at_ms > ?2";
            Ok(connection.prepare_cached(SQL)?.exists(params![code_sha256, now_ms])?)
        }))
    }

    fn create_reset(&self, reset: PasswordReset) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* create_reset */ INSERT INTO password_resets
                    (user_id, token_sha256, created_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (user_id) DO UPDATE SET token_sha256 = excluded.token_sha256,
                    created_at_ms = excluded.created_at_ms, expires_at_ms = excluded.expires_at_ms, used_at_ms = NULL";
            let PasswordReset { user_id, token_sha256, created_at_ms, expires_at_ms } = &reset;
            let values = params![user_id.into_bytes(), token_sha256, created_at_ms, expires_at_ms];
            connection.prepare_cached(SQL)?.execute(values)?;
            Ok(())
        }))
    }

    fn reset_user(&self, token_sha256: Sha256, now_ms: i64) -> BoxFuture<'_, Result<Option<Uuid>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str = "/* reset_user */ SELECT user_id FROM password_resets
                WHERE token_sha256 = ?1 AND used_at_ms IS NULL AND expires_at_ms > ?2";
            let found = connection.prepare_cached(SQL)?.query_row(params![token_sha256, now_ms], |row| id(row, 0));
            Ok(found.optional()?)
        }))
    }

    fn redeem_reset(
        &self,
        token_sha256: Sha256,
        password_hash: String,
        now_ms: i64,
        cut: Cut,
    ) -> BoxFuture<'_, Result<Option<Redeemed>>> {
        Box::pin(self.0.write(move |connection| {
            const USE: &str = "/* redeem_reset */ UPDATE password_resets SET used_at_ms = ?2
                WHERE token_sha256 = ?1 AND used_at_ms IS NULL AND expires_at_ms > ?2 RETURNING user_id";
            const SET: &str = "/* redeem_reset */ UPDATE users
                SET password_hash = ?2, tokens_from_s = max(tokens_from_s, ?3) WHERE id = ?1 AND state <> ?4";
            let found = connection.prepare_cached(USE)?.query_row(params![token_sha256, now_ms], |row| id(row, 0));
            let Some(user_id) = found.optional()? else { return Ok(None) };
            let values = params![user_id.into_bytes(), password_hash, cut.not_before_s, State::Deleted.number()];
            if connection.prepare_cached(SET)?.execute(values)? == 0 {
                return Ok(None);
            }
            let ended = list::end(connection, user_id, cut.except, &[(cut.scope(user_id), cut.expires_at_ms)])?;
            Ok(Some((user_id, ended)))
        }))
    }

    fn purge_secrets(&self, now_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const INVITES: &str = "/* purge_secrets */ DELETE FROM invites WHERE id IN (
                    SELECT id FROM invites WHERE expires_at_ms < ?1 OR uses_left = 0 LIMIT ?2)";
            const RESETS: &str = "/* purge_secrets */ DELETE FROM password_resets WHERE user_id IN (
                    SELECT user_id FROM password_resets WHERE expires_at_ms < ?1 LIMIT ?2)";
            let invites = connection.prepare_cached(INVITES)?.execute(params![now_ms, limit])?;
            Ok((invites + connection.prepare_cached(RESETS)?.execute(params![now_ms, limit])?) as u64)
        }))
    }
}

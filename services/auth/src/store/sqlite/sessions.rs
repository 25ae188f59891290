//! Sessions on SQLite.

use confab_common::Result;
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::audit::record;
use super::revocations::of_session;
use super::{Sqlite, id, list, user_by_id};
use crate::store::{
    Chain, Cut, Entry, MAX_SESSIONS, NewSession, Opened, Revocation, Rotated, Rotation, Scope, Seen, SessionStore,
    State, Step, StoredSession, User, wrong_credentials,
};

impl SessionStore for Sqlite {
    fn open_session(&self, session: NewSession, verified_hash: String) -> BoxFuture<'_, Result<Opened>> {
        Box::pin(self.0.write(move |connection| open(connection, &session, &verified_hash)))
    }

    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Rotated>> {
        Box::pin(self.0.write(move |connection| rotate(connection, &rotation)))
    }

    fn sessions(&self, user_id: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Vec<StoredSession>>> {
        Box::pin(self.0.read(move |connection| {
            const SQL: &str =
                "/* sessions */ SELECT id, created_at_ms, last_seen_at_ms, user_agent, address FROM sessions
                WHERE user_id = ?1 AND expires_at_ms > ?2 ORDER BY last_seen_at_ms DESC, id DESC LIMIT ?3";
            Ok(connection
                .prepare_cached(SQL)?
                .query_map(params![user_id.into_bytes(), now_ms, MAX_SESSIONS], stored)?
                .collect::<rusqlite::Result<_>>()?)
        }))
    }

    fn end_session(&self, user_id: Uuid, session: Uuid, now_ms: i64) -> BoxFuture<'_, Result<Option<Revocation>>> {
        Box::pin(self.0.write(move |connection| {
            const REVOKED: &str = "/* end_session */ SELECT 1 FROM revocations
                WHERE session_id = ?1 AND user_id = ?2 AND kind = 0";
            const SESSION: &str = "/* end_session */ SELECT token_expires_at_ms FROM sessions
                WHERE id = ?1 AND user_id = ?2 AND expires_at_ms > ?3";
            let (key, owner) = (session.into_bytes(), user_id.into_bytes());
            if connection.prepare_cached(REVOKED)?.exists(params![key, owner])? {
                return of_session(connection, session);
            }
            let mut found = connection.prepare_cached(SESSION)?;
            let found = found.query_row(params![key, owner, now_ms], |row| row.get(0)).optional()?;
            found.map(|expires| list::append(connection, user_id, Scope::Session(session), expires)).transpose()
        }))
    }

    fn end_sessions(
        &self,
        user_id: Uuid,
        cut: Cut,
        entry: Option<Entry>,
    ) -> BoxFuture<'_, Result<Option<Vec<Revocation>>>> {
        Box::pin(self.0.write(move |connection| {
            const UPDATE: &str = "/* end_sessions */ UPDATE users SET tokens_from_s = max(tokens_from_s, ?2)
                WHERE id = ?1 AND state <> ?3";
            let values = params![user_id.into_bytes(), cut.not_before_s, State::Deleted.number()];
            if connection.prepare_cached(UPDATE)?.execute(values)? == 0 {
                return Ok(None);
            }
            record(connection, entry.as_ref())?;
            list::end(connection, user_id, cut.except, &[(cut.scope(user_id), cut.expires_at_ms)]).map(Some)
        }))
    }

    fn purge_sessions(&self, expired_before_ms: i64, limit: u32) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.0.write(move |connection| {
            const SQL: &str = "/* purge_sessions */ DELETE FROM sessions WHERE id IN (
                    SELECT id FROM sessions WHERE expires_at_ms < ?1 ORDER BY expires_at_ms LIMIT ?2)";
            Ok(connection.prepare_cached(SQL)?.execute(params![expired_before_ms, limit])? as u64)
        }))
    }
}

fn open(connection: &Connection, session: &NewSession, verified_hash: &str) -> Result<Opened> {
    const USER: &str = "/* open_session */ SELECT state, password_hash, tokens_from_s FROM users WHERE id = ?1";
    const OLDEST: &str = "/* open_session */ SELECT id, token_expires_at_ms FROM sessions
        WHERE user_id = ?1 AND expires_at_ms > ?2 ORDER BY created_at_ms DESC, id DESC LIMIT -1 OFFSET ?3";
    const INSERT: &str = "/* open_session */ INSERT INTO sessions (id, user_id, created_at_ms, last_seen_at_ms,
            expires_at_ms, token_expires_at_ms, user_agent, address, refresh_sha256)
        VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8)";
    let user = session.user_id.into_bytes();
    let account = |row: &Row<'_>| Ok((State::of(row.get(0)?), row.get::<_, String>(1)?, row.get(2)?));
    let found = connection.prepare_cached(USER)?.query_row([user], account).optional()?;
    let (state, stored_hash, tokens_from_s) = found.ok_or_else(wrong_credentials)?;
    User::may_open(state, &stored_hash, verified_hash)?;
    let oldest = connection
        .prepare_cached(OLDEST)?
        .query_map(params![user, session.created_at_ms, MAX_SESSIONS - 1], |row| {
            Ok((Scope::Session(id(row, 0)?), row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(Scope, i64)>>>()?;
    let revoke = |(scope, expires): &(Scope, i64)| list::append(connection, session.user_id, *scope, *expires);
    // The oldest first.
    let revoked = oldest.iter().rev().map(revoke).collect::<Result<_>>()?;
    connection.prepare_cached(INSERT)?.execute(params![
        session.id.into_bytes(),
        user,
        session.created_at_ms,
        session.expires_at_ms(),
        session.token_expires_at_ms,
        session.seen.user_agent,
        session.seen.address,
        session.refresh.map(|refresh| refresh.token_sha256)
    ])?;
    record(connection, session.entry.as_ref())?;
    Ok(Opened { revoked, tokens_from_s })
}

/// The columns of a session that decide about a refresh.
struct Refreshed {
    user_id: Uuid,
    newest: Vec<u8>,
    previous: Option<Vec<u8>>,
    used_at_ms: Option<i64>,
    last_seen_at_ms: i64,
    token_expires_at_ms: i64,
}

fn refreshed(row: &Row<'_>) -> rusqlite::Result<Refreshed> {
    Ok(Refreshed {
        user_id: id(row, 0)?,
        newest: row.get(1)?,
        previous: row.get(2)?,
        used_at_ms: row.get(3)?,
        last_seen_at_ms: row.get(4)?,
        token_expires_at_ms: row.get(5)?,
    })
}

fn rotate(connection: &Connection, rotation: &Rotation) -> Result<Rotated> {
    const FIND: &str = "/* rotate */ SELECT user_id, refresh_sha256, previous_sha256, used_at_ms, last_seen_at_ms,
            token_expires_at_ms
        FROM sessions WHERE id = ?1 AND expires_at_ms > ?2 AND refresh_sha256 IS NOT NULL";
    const ADVANCE: &str = "/* rotate */ UPDATE sessions SET previous_sha256 = refresh_sha256, refresh_sha256 = ?2,
            generation = generation + 1, used_at_ms = ?3
        WHERE id = ?1";
    const TOUCH: &str = "/* rotate */ UPDATE sessions SET last_seen_at_ms = ?2,
            expires_at_ms = max(expires_at_ms, ?3, ?4), token_expires_at_ms = max(token_expires_at_ms, ?4),
            user_agent = ?5, address = ?6
        WHERE id = ?1";
    let key = rotation.session_id.into_bytes();
    let found = connection.prepare_cached(FIND)?.query_row(params![key, rotation.now_ms], refreshed).optional()?;
    let Some(session) = found else { return Ok(Rotated::Unknown) };
    let Refreshed { user_id, token_expires_at_ms, .. } = session;
    let chain =
        Chain { newest: &session.newest, previous: session.previous.as_deref(), used_at_ms: session.used_at_ms };
    let step = rotation.step(chain);
    let index = match step {
        Step::Advance => 0,
        Step::Repeat(index) => index,
        Step::Reuse => return Ok(Rotated::Reused { user_id, token_expires_at_ms }),
        Step::Unknown => return Ok(Rotated::Unknown),
    };
    let user = user_by_id(connection, user_id)?;
    let Some(user) = user.filter(|user| user.state == State::Active) else { return Ok(Rotated::Unknown) };
    if step == Step::Advance {
        let values = params![key, rotation.successor(index), rotation.now_ms];
        connection.prepare_cached(ADVANCE)?.execute(values)?;
    }
    connection.prepare_cached(TOUCH)?.execute(params![
        key,
        rotation.last_seen_at_ms(session.last_seen_at_ms, step),
        rotation.expires_at_ms,
        rotation.token_expires_at_ms,
        rotation.seen.user_agent,
        rotation.seen.address
    ])?;
    Ok(Rotated::Next { key: index, user: Box::new(user) })
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredSession> {
    Ok(StoredSession {
        id: id(row, 0)?,
        created_at_ms: row.get(1)?,
        last_seen_at_ms: row.get(2)?,
        seen: Seen { user_agent: row.get(3)?, address: row.get(4)? },
    })
}

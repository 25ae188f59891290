//! Appends to the numbered list of revocations, within a write.

use confab_common::Result;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::id;
use crate::store::{Revocation, Scope};

/// Appends one entry under the next number.
pub fn append(connection: &Connection, user_id: Uuid, scope: Scope, expires_at_ms: i64) -> Result<Revocation> {
    const ADVANCE: &str = "/* revoke */ UPDATE revocation_head SET number = number + 1 RETURNING number";
    // A later entry of the same kind replaces an earlier one, so a user has at most one cut and one block.
    const REPLACE: &str = "/* revoke */ DELETE FROM revocations
        WHERE user_id = ?1 AND kind <> 0 AND (kind = 1 AND ?2 = 1 OR kind > 1 AND ?2 > 1)";
    const INSERT: &str = "/* revoke */ INSERT INTO revocations
        (number, session_id, user_id, expires_at_ms, kind, not_before_s, except_session_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (kind, (not_before_s, except)) = (scope.kind(), scope.before_columns());
    if kind != 0 {
        connection.prepare_cached(REPLACE)?.execute(params![user_id.into_bytes(), kind])?;
    }
    let number = connection.prepare_cached(ADVANCE)?.query_row([], |row| row.get::<_, i64>(0))?;
    connection.prepare_cached(INSERT)?.execute(params![
        number,
        scope.session_column().into_bytes(),
        user_id.into_bytes(),
        expires_at_ms,
        kind,
        not_before_s,
        except.map(Uuid::into_bytes)
    ])?;
    Ok(Revocation { number: number as u64, scope, expires_at_ms })
}

/// Appends the revocations of a user's sessions except one, and then `scopes` with their expiries.
pub fn end(
    connection: &Connection,
    user_id: Uuid,
    except: Option<Uuid>,
    scopes: &[(Scope, i64)],
) -> Result<Vec<Revocation>> {
    const SESSIONS: &str = "/* revoke */ SELECT id, token_expires_at_ms FROM sessions
        WHERE user_id = ?1 AND id IS NOT ?2 ORDER BY created_at_ms, id";
    let sessions = connection
        .prepare_cached(SESSIONS)?
        .query_map(params![user_id.into_bytes(), except.map(Uuid::into_bytes)], |row| {
            Ok((Scope::Session(id(row, 0)?), row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(Scope, i64)>>>()?;
    let scopes = sessions.iter().chain(scopes);
    scopes.map(|(scope, expires_at_ms)| append(connection, user_id, *scope, *expires_at_ms)).collect()
}

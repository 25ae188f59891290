//! Appends to the numbered list of revocations, within a transaction.

use confab_common::Result;
use confab_common::pg::Client;
use tokio_postgres::{Row, Statement, Transaction};
use uuid::Uuid;

use super::prepare_all;
use crate::store::{Revocation, Scope};

const LOCK: &str = "/* revoke */ SELECT number FROM revocation_head FOR UPDATE";

const SESSIONS: &str = "/* revoke */ SELECT id, token_expires_at_ms FROM sessions
    WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND ($3::uuid[] IS NULL OR id = ANY($3))
    ORDER BY created_at_ms, id FOR UPDATE";

// A later entry of the same kind replaces an earlier one, so a user has at most one cut and one block.
const REPLACE: &str = "/* revoke */ DELETE FROM revocations
    WHERE user_id = $1 AND kind <> 0 AND (kind = 1 AND $2::smallint = 1 OR kind > 1 AND $2::smallint > 1)";

const INSERT: &str = "/* revoke */ INSERT INTO revocations
    (number, session_id, user_id, expires_at_ms, kind, not_before_s, except_session_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

const INSERT_SESSIONS: &str = "/* revoke */ INSERT INTO revocations (number, session_id, user_id, expires_at_ms)
    SELECT $1::bigint + n, id, $2::uuid, expires_at_ms
    FROM unnest($3::uuid[], $4::bigint[]) WITH ORDINALITY AS ended (id, expires_at_ms, n)";

const ADVANCE: &str = "/* revoke */ UPDATE revocation_head SET number = $1";

/// The prepared statements.
pub struct List {
    lock: Statement,
    sessions: Statement,
    replace: Statement,
    insert: Statement,
    insert_sessions: Statement,
    advance: Statement,
}

impl List {
    pub async fn prepare(client: &Client) -> Result<Self> {
        let texts = [LOCK, SESSIONS, REPLACE, INSERT, INSERT_SESSIONS, ADVANCE];
        let [lock, sessions, replace, insert, insert_sessions, advance] = prepare_all(client, texts).await?;
        Ok(Self { lock, sessions, replace, insert, insert_sessions, advance })
    }

    /// Locks the list until the end of the transaction, and returns its head. Each statement after the lock has a new
    /// snapshot, and so sees the commits of the lock's previous holder.
    pub async fn lock(&self, transaction: &Transaction<'_>) -> Result<i64> {
        Ok(transaction.query_one(&self.lock, &[]).await?.get(0))
    }

    /// Appends the revocations of a user's sessions, `only` those with these ids and without `except`, and then
    /// `scopes` with their expiries.
    pub async fn end(
        &self,
        transaction: &Transaction<'_>,
        user_id: Uuid,
        only: Option<&[Uuid]>,
        except: Option<Uuid>,
        scopes: &[(Scope, i64)],
    ) -> Result<Vec<Revocation>> {
        let head = self.lock(transaction).await?;
        let rows = transaction.query(&self.sessions, &[&user_id, &except, &only]).await?;
        let sessions = rows.iter().map(|row: &Row| (row.get(0), row.get(1))).collect::<Vec<_>>();
        let ended = self.append_sessions(transaction, head, user_id, &sessions).await?;
        self.append(transaction, head, user_id, ended, scopes).await
    }

    /// Appends the revocations of sessions, given with their expiries, above the locked head.
    pub async fn append_sessions(
        &self,
        transaction: &Transaction<'_>,
        head: i64,
        user_id: Uuid,
        sessions: &[(Uuid, i64)],
    ) -> Result<Vec<Revocation>> {
        let (ids, expiries): (Vec<Uuid>, Vec<i64>) = sessions.iter().copied().unzip();
        if !ids.is_empty() {
            transaction.execute(&self.insert_sessions, &[&head, &user_id, &ids, &expiries]).await?;
            transaction.execute(&self.advance, &[&(head + ids.len() as i64)]).await?;
        }
        let revocation = |(number, (id, expires_at_ms)): (i64, &(Uuid, i64))| Revocation {
            number: number as u64,
            scope: Scope::Session(*id),
            expires_at_ms: *expires_at_ms,
        };
        Ok((head + 1..).zip(sessions).map(revocation).collect())
    }

    /// Appends entries about all tokens of a user after `ended`, the entries that the transaction has appended above
    /// `head`.
    async fn append(
        &self,
        transaction: &Transaction<'_>,
        head: i64,
        user_id: Uuid,
        mut ended: Vec<Revocation>,
        scopes: &[(Scope, i64)],
    ) -> Result<Vec<Revocation>> {
        for (scope, expires_at_ms) in scopes {
            let number = head + 1 + ended.len() as i64;
            let ((not_before_s, except), kind) = (scope.before_columns(), scope.kind());
            transaction.execute(&self.replace, &[&user_id, &kind]).await?;
            let session = scope.session_column();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
                [&number, &session, &user_id, expires_at_ms, &kind, &not_before_s, &except];
            transaction.execute(&self.insert, &values).await?;
            transaction.execute(&self.advance, &[&number]).await?;
            ended.push(Revocation { number: number as u64, scope: *scope, expires_at_ms: *expires_at_ms });
        }
        Ok(ended)
    }
}

//! Prepares the schema of a pool: migrates it, or waits until it is migrated.

use anyhow::{Context, bail};
use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::errors::{fault, reason, refuses};
use super::{Pool, WORK_LIMIT};
use crate::config::Migrate;

/// How often two sessions are compared: a single comparison may miss a busy pooler.
const LOOKS: usize = 3;

/// Leaves other roles only the privileges that they need. Default privileges grant all on every new table, also on the
/// list of applied migrations; a service restricts those on its own tables in its function `restrict_privileges`.
const RESTRICT: &str = "DO $restrict$ DECLARE held record;
    BEGIN
        FOR held IN
            SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
                string_agg(DISTINCT acl.privilege_type, ', ') AS excess
            FROM pg_class c, LATERAL aclexplode(c.relacl) AS acl
            WHERE c.oid = to_regclass('refinery_schema_history') AND pg_has_role(c.relowner, 'USAGE')
                AND acl.grantee <> c.relowner AND acl.privilege_type <> 'SELECT'
            GROUP BY acl.grantee
        LOOP
            EXECUTE format('REVOKE %s ON refinery_schema_history FROM %s CASCADE', held.excess, held.grantee);
        END LOOP;
        IF EXISTS (SELECT FROM pg_proc p
            WHERE p.oid = to_regprocedure('restrict_privileges()') AND pg_has_role(p.proowner, 'USAGE')) THEN
            PERFORM restrict_privileges();
        END IF;
    END $restrict$";

/// The reason why the schema cannot be used now.
pub(super) struct Obstacle {
    pub reason: String,
    /// Whether the obstacle may disappear without an operator.
    pub passes: bool,
}

impl Pool {
    /// Prepares the schema, without a time limit. An inner error may disappear before the next attempt: the server or
    /// the schema does not exist yet, or the server rejects writes.
    pub(super) async fn prepare(
        &self,
        schema: &str,
        migrations: &refinery::Runner,
        migrate: Migrate,
    ) -> anyhow::Result<Result<(), Obstacle>> {
        let client = match self.connections.get().await {
            Ok(client) => client,
            Err(error) => return Ok(Err(Obstacle { reason: reason(&error), passes: !refuses(&error) })),
        };
        match timeout(WORK_LIMIT, self.sessions_are_shared(&client)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => bail!(
                "the {schema} store's URL leads to a pooler that lends connections of Postgres for one transaction at a time, such as PgBouncer \
                 with pool_mode = transaction: Confab needs sessions. Connect to Postgres itself, or set pool_mode = session"
            ),
            Ok(Err(error)) => return Ok(Err(Obstacle { reason: reason(&error), passes: true })),
            Err(_) => return Ok(Err(silent(client))),
        }
        match migrate {
            Migrate::Auto => match bring_up_to_date(client, schema, migrations).await {
                Ok(()) => Ok(Ok(())),
                Err(error) => {
                    let cause = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
                    match cause.filter(|cause| fault(cause).is_some()) {
                        Some(cause) => Ok(Err(Obstacle { reason: reason(cause), passes: true })),
                        None => Err(error),
                    }
                }
            },
            Migrate::Off => Ok(is_up_to_date(client, migrations).await),
        }
    }
}

impl Pool {
    /// Returns whether a pooler shares sessions: one Postgres process serves this session and another one, or several
    /// processes serve this session. Session settings, locks and prepared statements then do not last.
    async fn sessions_are_shared(&self, client: &Object) -> Result<bool, tokio_postgres::Error> {
        for _ in 0..LOOKS {
            let own = process(client).await?;
            let other = match self.connections.status().max_size {
                1 => None,
                _ => self.connections.get().await.ok(),
            };
            // A pooler lends the connection that was used last.
            let others = match &other {
                Some(other) => process(other).await?,
                None => None,
            };
            if own == others || own != process(client).await? {
                // Our settings must not affect the next user of these connections.
                client.batch_execute("RESET ALL").await?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the id of the Postgres process that answers.
async fn process(client: &Object) -> Result<Option<String>, tokio_postgres::Error> {
    let answers = client.simple_query("SELECT pg_backend_pid()").await?;
    Ok(answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn bring_up_to_date(mut client: Object, schema: &str, migrations: &refinery::Runner) -> anyhow::Result<()> {
    // A session lock: replicas that start together take turns, and a crash releases it. Creating the schema only if it
    // is missing needs no right to create schemas; `IF NOT EXISTS` would check that right in any case.
    let lock = format!(
        "SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock(hashtext('confab-{schema}'));
         DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;
         IF current_schema() <> '{schema}' THEN RAISE 'tables would be made in schema %', current_schema(); END IF; END $$;"
    );
    let locked = client.batch_execute(&lock).await.with_context(|| format!("creating schema {schema}"));
    let outcome = match locked {
        Ok(()) => migrated(&mut client, schema, migrations).await,
        Err(error) => Err(error),
    };
    // Closed instead of returned to the pool: closing always releases the lock and resets the session's settings.
    drop(Object::take(client));
    outcome
}

async fn migrated(client: &mut Object, schema: &str, migrations: &refinery::Runner) -> anyhow::Result<()> {
    migrations.run_async(&mut ***client).await.with_context(|| format!("migrating schema {schema}"))?;
    client.batch_execute(RESTRICT).await.with_context(|| format!("restricting the privileges in schema {schema}"))
}

async fn is_up_to_date(client: Object, migrations: &refinery::Runner) -> Result<(), Obstacle> {
    let newest = migrations.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or_default();
    match timeout(WORK_LIMIT, client.query_one("SELECT max(version) FROM refinery_schema_history", &[])).await {
        Ok(Ok(row)) if row.get::<_, Option<i32>>(0) >= Some(newest) => Ok(()),
        Ok(Ok(_)) => {
            let reason = format!("the schema is older than version {newest}; run the migrate subcommand");
            Err(Obstacle { reason, passes: true })
        }
        Ok(Err(error)) => {
            let missing = error.code() == Some(&SqlState::UNDEFINED_TABLE);
            let advice =
                if missing { ": missing, or not accessible for this user; run the migrate subcommand" } else { "" };
            let passes = error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE);
            Err(Obstacle { reason: format!("{}{advice}", reason(&error)), passes })
        }
        Err(_) => Err(silent(client)),
    }
}

/// Discards a connection without an answer.
fn silent(client: Object) -> Obstacle {
    drop(Object::take(client));
    Obstacle { reason: "the database is silent".into(), passes: true }
}

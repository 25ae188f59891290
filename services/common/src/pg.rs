//! A Postgres schema as a service's store: pool with bounded waits, TLS, migrations under a lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
pub use deadpool_postgres::ClientWrapper as Client;
use deadpool_postgres::{Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures::FutureExt;
use tokio::time::{interval, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Migrate, at_least_one};
use crate::metrics::Postgres;
use crate::telemetry::trace::{Kind, Span};
use crate::{Error, Result, Secret};

/// Connections that are opened at start.
const WARM: usize = 4;
/// Longest that one piece of work with a connection takes. The server ends a statement after three seconds and says so; one that
/// says nothing for longer is frozen or gone, which TCP does not notice while its machine or a middlebox still acknowledges.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause before a server that is not there yet is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it is said why that goes on.
const REPORT: Duration = Duration::from_secs(5);

/// How a service's database is opened.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Stores")]
pub struct PostgresConfig {
    /// Whether to bring a Postgres schema up to date at start (`auto`), or to wait until the `migrate` subcommand has done it (`off`)
    #[arg(long, env = "CONFAB_MIGRATE", default_value = "auto", value_name = "auto|off")]
    pub migrate: Migrate,
    /// Most connections that one service's process opens to Postgres
    #[arg(long, env = "CONFAB_POSTGRES_CONNECTIONS", default_value_t = 16, value_name = "N", value_parser = at_least_one)]
    pub postgres_connections: usize,
    /// How long to wait for Postgres, and not at all when it refuses: for a command that runs once. What serves waits for ever.
    #[arg(skip)]
    pub patience: Option<Duration>,
}

/// Why the schema cannot be had now.
struct Obstacle {
    reason: String,
    /// Whether it may pass without anybody's doing.
    passes: bool,
}

/// A pool of connections that see one schema; clones share it.
#[derive(Clone)]
pub struct Pool(deadpool_postgres::Pool, Postgres);

impl Pool {
    /// Opens the schema, creating and migrating it under a lock (or waiting for that), and waits for a server that is not there yet.
    ///
    /// # Errors
    /// When the URL is wrong or a migration fails; with patience also when the server refuses or stays away.
    pub async fn open(url: &Secret, schema: &'static str, migrations: refinery::Runner, config: &PostgresConfig) -> anyhow::Result<Self> {
        // The error of a bad URL may quote it, password and all; so it is not shown.
        let mut pg = url.expose().parse::<Config>().ok().with_context(|| format!("the {schema} store is not a valid postgres:// URL"))?;
        // Whatever the statistics say: a plan made for a small table is kept until it is analyzed, however it has grown by then.
        let session = format!(
            "-c search_path={schema} -c statement_timeout=3s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s \
             -c default_transaction_isolation=read\\ committed -c jit=off -c enable_seqscan=off -c enable_bitmapscan=off {}",
            pg.get_options().unwrap_or_default()
        );
        pg.options(&session)
            .application_name(format!("confab-{schema}"))
            .connect_timeout(Duration::from_secs(2))
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(15));
        let manager = Manager::from_config(pg, tls()?, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(config.postgres_connections)
            .timeouts(Timeouts {
                wait: Some(Duration::from_secs(2)),
                create: Some(Duration::from_secs(2)),
                recycle: Some(Duration::from_secs(1)),
            })
            .runtime(Runtime::Tokio1)
            .build()?;
        let weak = pool.weak();
        let status = move || weak.upgrade().map(|pool| pool.status());
        let metrics = Postgres::new(schema, move || status().map(|now| [now.max_size, now.size, now.available, now.waiting]));
        let pool = Self(pool, metrics);
        // A program lives on the schema of the next one, which has only been added to.
        let migrations = migrations.set_abort_missing(false);
        let begun = Instant::now();
        let mut report = interval(REPORT);
        while let Err(Obstacle { reason, passes }) = pool.prepare(schema, &migrations, config.migrate).await? {
            let waits = config.patience.is_none_or(|patience| passes && begun.elapsed() < patience);
            ensure!(waits, "cannot use the {schema} store on Postgres: {reason}");
            if report.tick().now_or_never().is_some() {
                tracing::warn!(schema, error = reason, "waiting for Postgres");
            }
            sleep(AGAIN).await;
        }
        pool.warm_up(config.postgres_connections.min(WARM)).await;
        Ok(pool)
    }

    /// Opens some connections ahead, so that the first callers do not all wait for them at once.
    async fn warm_up(&self, connections: usize) {
        let opened = futures::future::join_all((0..connections).map(|_| self.0.get())).await;
        tracing::debug!(connections = opened.iter().filter(|opened| opened.is_ok()).count(), "connections are open");
    }

    /// Does work with a connection, bounded in time. What its caller leaves behind unfinished is never lent to another.
    ///
    /// # Errors
    /// `unavailable` when there is no connection within two seconds; `timeout` when the server is silent, and what was asked of
    /// it is perhaps done; whatever the work ends with.
    pub async fn run<T, E: From<Error>>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T, E>) -> Result<T, E> {
        let span = Span::current().child(Kind::Client, "postgres");
        span.set("db.system.name", || "postgresql");
        let connection = self.connection().await.inspect_err(|_| span.fail("unavailable"))?;
        let mut lent = Lent { pool: self, since: Instant::now(), connection: None };
        let done = timeout(ANSWER, span.hold(work(lent.connection.insert(connection)))).await;
        let connection = lent.connection.take();
        done.unwrap_or_else(|_| {
            span.fail("timeout");
            self.give_up(connection, lent.since);
            Err(Error::timeout().into())
        })
    }

    /// A connection for work of any length, which never comes back.
    ///
    /// # Errors
    /// `unavailable` when there is none within two seconds.
    pub(crate) async fn take(&self) -> Result<Client> {
        self.connection().await.map(Object::take)
    }

    async fn connection(&self) -> Result<Object> {
        let begun = Instant::now();
        let connection = self.0.get().await;
        self.1.wait.record(begun.elapsed());
        connection.map_err(|error| {
            self.1.refused.increment(1);
            tracing::warn!(%error, "no database connection");
            Error::unavailable("the database")
        })
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// As [`Pool::run`]; when the database refuses.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.run(async |client| Ok(client.query(&prepare(client, sql).await?, values).await?)).await
    }

    /// How many rows a statement changed.
    ///
    /// # Errors
    /// As [`Pool::run`]; when the database refuses.
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.run(async |client| Ok(client.execute(&prepare(client, sql).await?, values).await?)).await
    }

    /// Closes a connection whose server is silent, and the idle ones that it has not answered on since.
    fn give_up(&self, connection: Option<Object>, since: Instant) {
        tracing::warn!("the database is silent; its connections are closed");
        drop(connection.map(Object::take));
        self.0.retain(|_, metrics| metrics.last_used() < since.elapsed());
    }

    /// Brings the schema up to date, which takes as long as it takes. The inner error is one that may be over at the next try: the
    /// server or the schema is not there yet.
    async fn prepare(&self, schema: &str, migrations: &refinery::Runner, migrate: Migrate) -> anyhow::Result<Result<(), Obstacle>> {
        let mut client = match self.0.get().await {
            Ok(client) => client,
            Err(error) => return Ok(Err(Obstacle { reason: root_cause(&error), passes: !refuses(&error) })),
        };
        let newest = migrations.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or_default();
        match migrate {
            Migrate::Auto => {
                // A session lock: replicas that start together take turns, and a crash frees it.
                // One that was made for us needs no right to make any, which `IF NOT EXISTS` would ask for all the same.
                let lock = format!(
                    "SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock(hashtext('confab-{schema}'));
                     DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; END $$;"
                );
                client.batch_execute(&lock).await.with_context(|| format!("creating schema {schema}"))?;
                let outcome = migrations.run_async(&mut **client).await.with_context(|| format!("migrating schema {schema}"));
                // Not back to the pool: closing it ends the lock and its settings, whatever happened.
                drop(Object::take(client));
                outcome.map(|_| Ok(()))
            }
            Migrate::Off => match timeout(ANSWER, client.query_one("SELECT max(version) FROM refinery_schema_history", &[])).await {
                Ok(Ok(row)) if row.get::<_, Option<i32>>(0) >= Some(newest) => Ok(Ok(())),
                Ok(Ok(_)) => {
                    let reason = format!("the schema is older than version {newest}; run the migrate subcommand");
                    Ok(Err(Obstacle { reason, passes: true }))
                }
                Ok(Err(error)) => {
                    let (cause, missing) = (root_cause(&error), error.code() == Some(&SqlState::UNDEFINED_TABLE));
                    let advice = if missing { ": not there yet, or not for this user; run the migrate subcommand" } else { "" };
                    let passes = error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE);
                    Ok(Err(Obstacle { reason: format!("{cause}{advice}"), passes }))
                }
                Err(_) => {
                    drop(Object::take(client));
                    Ok(Err(Obstacle { reason: "the database is silent".into(), passes: true }))
                }
            },
        }
    }
}

/// Prepares a statement, or finds it prepared. In a trace, the work with the connection is called after it.
///
/// # Errors
/// When the database refuses it or the connection breaks.
pub async fn prepare(client: &Client, sql: &str) -> Result<Statement, tokio_postgres::Error> {
    let span = Span::current();
    // Each begins with its name, in a comment.
    let name = || sql.split_whitespace().nth(1).unwrap_or_default();
    span.rename(|| format!("postgres {}", name()));
    span.set("db.operation.name", || name().to_owned());
    client.prepare_cached(sql).await
}

/// A connection that is lent to somebody.
struct Lent<'a> {
    pool: &'a Pool,
    since: Instant,
    connection: Option<Object>,
}

impl Drop for Lent<'_> {
    /// Its borrower has left in the middle, as a caller does whose deadline is over. It goes back once the server has answered
    /// everything; until then it counts as lent, so that impatient callers do not multiply the server's work.
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return drop(Object::take(connection)) };
        let (pool, since) = (self.pool.clone(), self.since);
        runtime.spawn(async move {
            if timeout(ANSWER, connection.batch_execute("")).await.is_err() {
                pool.give_up(Some(connection), since);
            }
        });
    }
}

/// Whether the server is there and does not let us in.
fn refuses(error: &PoolError) -> bool {
    let PoolError::Backend(error) = error else { return false };
    // Invalid authorization: no such role, another password.
    error.code().is_some_and(|code| code.code().starts_with("28") || code == &SqlState::INVALID_CATALOG_NAME)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// TLS as the URL's `sslmode` asks; certificates are always verified against the system's roots.
fn tls() -> anyhow::Result<MakeRustlsConnect> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whether an error is that constraint's violation.
pub fn violates(error: &tokio_postgres::Error, constraint: &str) -> bool {
    error.as_db_error().is_some_and(|error| error.code() == &SqlState::UNIQUE_VIOLATION && error.constraint() == Some(constraint))
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            // The connection broke: what was sent on it may have been done.
            tracing::warn!(%error, "a database connection broke");
            return Error::timeout();
        };
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        match (&code.code()[..2], code) {
            (_, &SqlState::QUERY_CANCELED) => Error::timeout(),
            (_, &SqlState::LOCK_NOT_AVAILABLE | &SqlState::READ_ONLY_SQL_TRANSACTION) | ("53" | "40", _) => {
                tracing::warn!(%error, code = code.code(), "the database refuses");
                Error::unavailable("the database")
            }
            ("57" | "08" | "58", _) => {
                tracing::warn!(%error, code = code.code(), "the database ended the connection");
                Error::timeout()
            }
            _ => Error::internal(
                error.as_db_error().map_or_else(|| error.to_string(), |db| format!("{}: {}", db.code().code(), db.message())),
            ),
        }
    }
}

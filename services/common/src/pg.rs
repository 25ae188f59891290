//! A Postgres schema as a service's store: a pool with bounded waits, TLS, and migrations under a lock.

mod errors;
mod schema;
mod session;
mod standing;
mod tls;
mod url;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
pub use deadpool_postgres::ClientWrapper as Client;
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};
use futures::FutureExt;
use tokio::time::{interval, sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Migrate, at_least_one};
use crate::metrics::Postgres;
use crate::readiness::Readiness;
use crate::telemetry::trace::{Kind, Span};
use crate::{Error, Result, Secret};

pub use errors::{note_fault, violates};

use errors::{Fault, observed};
use schema::Obstacle;
use session::Sessions;
use standing::Standing;
use url::Target;

/// Connections opened at start.
const WARM_CONNECTIONS: usize = 4;
/// Time limit for one piece of work on a connection. The server ends a statement with an error after three seconds, so
/// a server that stays silent for longer is frozen or unreachable. TCP does not detect this while the machine or a
/// middlebox still sends acknowledgements.
const WORK_LIMIT: Duration = Duration::from_secs(5);
/// Pause between attempts to reach the server.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How often the reason for waiting is logged.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Settings of a service's database on Postgres
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Stores")]
pub struct PostgresConfig {
    /// Whether to bring a Postgres schema up to date at start (`auto`), or to wait until the `migrate` subcommand has
    /// done so (`off`)
    #[arg(long, env = "CONFAB_MIGRATE", default_value = "auto", value_name = "auto|off")]
    pub migrate: Migrate,
    /// Most connections that one service's process opens to Postgres
    #[arg(long, env = "CONFAB_POSTGRES_CONNECTIONS", default_value_t = 16, value_name = "N", value_parser = at_least_one)]
    pub postgres_connections: usize,
    /// How long to wait for an unreachable Postgres; a Postgres that rejects the login is an error at once. Commands
    /// set it. Servers wait without limit (`None`)
    #[arg(skip)]
    pub patience: Option<Duration>,
    /// Receives notes about the state of Postgres
    #[arg(skip)]
    pub readiness: Readiness,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self { migrate: Migrate::Auto, postgres_connections: 16, patience: None, readiness: Readiness::default() }
    }
}

/// A pool of connections to one schema; clones share it.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    metrics: Postgres,
    standing: Arc<Standing>,
}

impl Pool {
    /// Opens the schema. Creates and migrates it under a lock, or waits until another process has done so. Waits for an
    /// unreachable server.
    ///
    /// # Errors
    /// When the URL is malformed or a migration fails. With `patience` also when the server rejects the login or stays
    /// unreachable.
    pub async fn open(
        url: &Secret,
        schema: &'static str,
        migrations: refinery::Runner,
        config: &PostgresConfig,
    ) -> anyhow::Result<Self> {
        let Target { config: mut server, tls } =
            Target::parse(url.expose()).with_context(|| format!("the URL of the {schema} store"))?;
        server
            .application_name(format!("confab-{schema}"))
            .connect_timeout(Duration::from_secs(2))
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(15));
        let sessions =
            Sessions::new(MakeRustlsConnect::new(tls.config()?), schema, server.get_options().unwrap_or_default());
        let manager =
            Manager::from_connect(server, sessions, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(config.postgres_connections)
            .timeouts(Timeouts {
                wait: Some(Duration::from_secs(2)),
                create: Some(Duration::from_secs(2)),
                recycle: Some(Duration::from_secs(1)),
            })
            .runtime(Runtime::Tokio1)
            .build()?;
        let weak = connections.weak();
        let status = move || weak.upgrade().map(|pool| pool.status());
        let metrics =
            Postgres::new(schema, move || status().map(|now| [now.max_size, now.size, now.available, now.waiting]));
        let pool = Self { connections, metrics, standing: Arc::new(Standing::new(schema, config.readiness.clone())) };
        // A program can run on the schema of the next release, because releases only add to it.
        let migrations = migrations.set_abort_missing(false);
        let opened = config.readiness.condition("Postgres");
        let begun = Instant::now();
        let mut report = interval(REPORT_EVERY);
        while let Err(Obstacle { reason, passes }) = pool.prepare(schema, &migrations, config.migrate).await? {
            let waits = config.patience.is_none_or(|patience| passes && begun.elapsed() < patience);
            ensure!(waits, "cannot use the {schema} store on Postgres: {reason}");
            if report.tick().now_or_never().is_some() {
                tracing::warn!(schema, error = reason, "waiting for Postgres");
            }
            pool.standing.note(Some(reason));
            sleep(CONNECT_PAUSE).await;
        }
        pool.standing.note(None);
        opened.set(true);
        pool.warm_up(config.postgres_connections.min(WARM_CONNECTIONS)).await;
        Ok(pool)
    }

    /// Opens some connections in advance, so that the first callers do not all wait.
    async fn warm_up(&self, connections: usize) {
        let opened = futures::future::join_all((0..connections).map(|_| self.connections.get())).await;
        tracing::debug!(connections = opened.iter().filter(|opened| opened.is_ok()).count(), "connections are open");
    }

    /// Runs work on a connection, within a time limit. A connection with unfinished work is never lent to another
    /// caller.
    ///
    /// # Errors
    /// `unavailable` when no connection is free within two seconds; `timeout` when the server is silent, and the work
    /// may have been done; otherwise the error of the work.
    pub async fn run<T, E: From<Error>>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T, E>) -> Result<T, E> {
        let span = Span::current().child(Kind::Client, "postgres");
        span.set("db.system.name", || "postgresql");
        let connection = self.connection().await.inspect_err(|_| span.fail("unavailable"))?;
        let mut checkout = Checkout { pool: self, since: Instant::now(), connection: None };
        let done = timeout(WORK_LIMIT, span.instrument(observed(work(checkout.connection.insert(connection))))).await;
        let connection = checkout.connection.take();
        let Ok((done, fault)) = done else {
            span.fail("timeout");
            self.close_silent(connection, checkout.since);
            return Err(Error::timeout().into());
        };
        if fault.is_some() {
            drop(connection.map(Object::take));
        }
        if fault == Some(Fault::Server) {
            self.standing.leave_server(&self.connections);
        }
        done
    }

    /// Removes a connection from the pool, for work of any length.
    ///
    /// # Errors
    /// `unavailable` when no connection is free within two seconds.
    pub(crate) async fn take(&self) -> Result<Client> {
        self.connection().await.map(Object::take)
    }

    async fn connection(&self) -> Result<Object> {
        let begun = Instant::now();
        let connection = self.standing.check_out(&self.connections).await;
        self.metrics.wait.record(begun.elapsed());
        connection.map_err(|error| {
            self.metrics.refused.increment(1);
            tracing::warn!(%error, "no database connection");
            Error::unavailable("the database")
        })
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// As [`Pool::run`], and when the database rejects the statement.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.run(async |client| Ok(client.query(&prepare(client, sql).await?, values).await?)).await
    }

    /// Runs a statement and returns the number of rows changed.
    ///
    /// # Errors
    /// As [`Pool::run`], and when the database rejects the statement.
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.run(async |client| Ok(client.execute(&prepare(client, sql).await?, values).await?)).await
    }

    /// Closes the connection of a silent server, and all idle connections that the server has not answered on since
    /// then.
    fn close_silent(&self, connection: Option<Object>, since: Instant) {
        tracing::warn!("the database is silent; closing its connections");
        drop(connection.map(Object::take));
        self.connections.retain(|_, metrics| metrics.last_used() < since.elapsed());
    }
}

/// Prepares a statement, or returns the prepared one. In a trace, the span is named after the statement.
///
/// # Errors
/// When the database rejects the statement or the connection breaks.
pub async fn prepare(client: &Client, sql: &str) -> Result<Statement, tokio_postgres::Error> {
    let span = Span::current();
    // Each statement begins with its name in a comment.
    let name = || sql.split_whitespace().nth(1).unwrap_or_default();
    span.rename(|| format!("postgres {}", name()));
    span.set("db.operation.name", || name().to_owned());
    client.prepare_cached(sql).await
}

/// A connection checked out of the pool by a caller.
struct Checkout<'a> {
    pool: &'a Pool,
    since: Instant,
    connection: Option<Object>,
}

impl Drop for Checkout<'_> {
    /// Runs when the caller is dropped midway, for example at its deadline. The connection returns to the pool after
    /// the server has answered all its requests. Until then it counts as in use, so that retrying callers do not
    /// multiply the server's work.
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return drop(Object::take(connection)) };
        let (pool, since) = (self.pool.clone(), self.since);
        runtime.spawn(async move {
            if timeout(WORK_LIMIT, connection.batch_execute("")).await.is_err() {
                pool.close_silent(Some(connection), since);
            }
        });
    }
}

/// Checks the URL of a store.
///
/// # Errors
/// When [`Pool::open`] would reject it.
pub fn check(url: &str) -> anyhow::Result<()> {
    Target::parse(url).map(drop)
}

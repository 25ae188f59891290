//! A Postgres schema as a service's store: pool with bounded waits, TLS, migrations under a lock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Migrate;
use crate::{Error, Result, Secret};

/// Connections that are opened at start.
const WARM: usize = 4;

/// How a service's database is opened.
#[derive(Debug, Clone, clap::Args)]
pub struct PostgresConfig {
    /// Whether to bring a Postgres schema up to date at start, or to wait for another process to do it
    #[arg(long, env = "CONFAB_MIGRATE", default_value = "auto", value_name = "auto|off")]
    pub migrate: Migrate,
    /// Most connections that one service's process opens to Postgres
    #[arg(long, env = "CONFAB_POSTGRES_CONNECTIONS", default_value_t = 16, value_name = "N")]
    pub postgres_connections: usize,
}

/// A pool of connections that see one schema; clones share it.
#[derive(Clone)]
pub struct Pool(deadpool_postgres::Pool);

impl Pool {
    /// Opens the schema, creating and migrating it under a lock (or waiting for that), and waits for a server that is not there yet.
    ///
    /// # Errors
    /// When the URL is wrong or a migration fails.
    pub async fn open(url: &Secret, schema: &'static str, migrations: refinery::Runner, config: &PostgresConfig) -> anyhow::Result<Self> {
        // The error of a bad URL may quote it, password and all; so it is not shown.
        let mut pg = url.expose().parse::<Config>().ok().with_context(|| format!("the {schema} store is not a valid postgres:// URL"))?;
        let session = format!(
            "-c search_path={schema} -c statement_timeout=3s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s \
             -c default_transaction_isolation=read\\ committed -c jit=off {}",
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
        let pool = Self(pool);
        let mut waited = 0;
        while let Err(error) = pool.prepare(schema, &migrations, config.migrate).await? {
            if waited % 20 == 0 {
                tracing::warn!(schema, %error, "waiting for Postgres");
            }
            waited += 1;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        pool.warm_up(config.postgres_connections.min(WARM)).await;
        Ok(pool)
    }

    /// Opens some connections ahead, so that the first callers do not all wait for them at once.
    async fn warm_up(&self, connections: usize) {
        let opened = futures::future::join_all((0..connections).map(|_| self.0.get())).await;
        tracing::debug!(connections = opened.iter().filter(|opened| opened.is_ok()).count(), "connections are open");
    }

    /// A connection, within two seconds.
    ///
    /// # Errors
    /// `unavailable` when there is none.
    pub async fn get(&self) -> Result<Object> {
        self.0.get().await.map_err(|error| {
            tracing::warn!(%error, "no database connection");
            Error::unavailable("the database")
        })
    }

    /// Brings the schema up to date. The inner error is one that passes: the server or the schema is not there yet.
    async fn prepare(&self, schema: &str, migrations: &refinery::Runner, migrate: Migrate) -> anyhow::Result<Result<(), String>> {
        let mut client = match self.0.get().await {
            Ok(client) => client,
            Err(error) => return Ok(Err(root_cause(&error))),
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
            Migrate::Off => match client.query_one("SELECT max(version) FROM refinery_schema_history", &[]).await {
                Ok(row) if row.get::<_, Option<i32>>(0) >= Some(newest) => Ok(Ok(())),
                _ => Ok(Err(format!("the schema is older than version {newest}; run the migrate subcommand"))),
            },
        }
    }
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

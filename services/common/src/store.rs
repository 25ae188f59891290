//! Where a service keeps what must last: picked by the scheme of a URL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::Secret;
use crate::bus::Bus;
use crate::config::Migrate;
use crate::pg::PostgresConfig;
use crate::process::Process;

/// How long a command that runs once waits for a store that is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a key that signs must have, in bytes: fewer can be guessed.
const SHORTEST_KEY: usize = 16;

/// Settings of whoever has a store.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Stores")]
pub struct StorageConfig {
    /// Directory for what is kept in files: SQLite, the bytes of files, the key
    #[arg(long, env = "CONFAB_DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Settings of stores on Postgres.
    #[command(flatten)]
    pub postgres: PostgresConfig,
}

impl StorageConfig {
    /// The same, for a process that serves and says what is wrong with a store.
    pub fn serving(&self, process: &Process) -> Self {
        let mut config = self.clone();
        config.postgres.readiness = process.readiness.clone();
        config
    }

    /// The same, for a command that runs once and then ends.
    pub fn once(&self) -> Self {
        let mut config = self.clone();
        config.postgres.patience = Some(PATIENCE);
        config
    }

    /// The same, with the schema brought up to date: for a `migrate` subcommand.
    pub fn migrating(&self) -> Self {
        let mut config = self.once();
        config.postgres.migrate = Migrate::Auto;
        config
    }
}

/// Settings of whoever uses the bus.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Bus")]
pub struct BusConfig {
    /// The bus, which tells others at once of what is new: `local:`, or `redis://…` or `rediss://…` to join several processes
    #[arg(long, env = "CONFAB_BUS", default_value = "local:", hide_env_values = true, value_name = "URL")]
    pub bus: Secret,
    /// Signs what goes over the bus and from gateway to gateway; the same for every program of a cluster. Set it whenever the
    /// bus is Redis: `openssl rand -base64 32`
    #[arg(long, env = "CONFAB_CLUSTER_KEY", hide_env_values = true, value_name = "SECRET")]
    pub cluster_key: Option<Secret>,
}

impl BusConfig {
    /// Finds out whether [`BusConfig::open`] would fail.
    ///
    /// # Errors
    /// When the URL is wrong or the key too short.
    pub fn check(&self) -> anyhow::Result<()> {
        let long = self.cluster_key.as_ref().is_none_or(|key| key.expose().len() >= SHORTEST_KEY);
        ensure!(long, "CONFAB_CLUSTER_KEY must have at least {SHORTEST_KEY} characters; `openssl rand -base64 32` makes one");
        Bus::check(&self.bus)
    }

    /// The bus at that URL.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn open(&self) -> anyhow::Result<Bus> {
        if self.cluster_key.is_none() && self.bus.expose() != "local:" {
            tracing::warn!("CONFAB_CLUSTER_KEY is not set: whoever reaches the bus can forge what goes over it");
        }
        Bus::open(&self.bus, self.cluster_key.as_ref())
    }
}

/// A service's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:PATH`.
    Sqlite(PathBuf),
    /// `postgres://…`.
    Postgres(Secret),
}

impl StoreUrl {
    /// The store that `setting` names; without it `file` in the data directory.
    ///
    /// # Errors
    /// When the URL has another scheme or cannot be understood. The message does not quote it: it may hold a password.
    pub fn parse(setting: &str, url: Option<&Secret>, data_dir: &Path, file: &str) -> anyhow::Result<Self> {
        let Some(url) = url else { return Ok(Self::Sqlite(data_dir.join(file))) };
        match url.expose() {
            text if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
                ensure!(text.parse::<tokio_postgres::Config>().is_ok(), "{setting} is not a valid postgres:// URL");
                Ok(Self::Postgres(url.clone()))
            }
            text => match text.strip_prefix("sqlite:") {
                Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
                _ => bail!("{setting} must be sqlite:PATH or postgres://…"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_can_be_guessed_is_refused() {
        let config = |key: Option<&str>| BusConfig { bus: "local:".into(), cluster_key: key.map(Secret::from) };
        assert!(config(None).check().is_ok() && config(Some("0123456789abcdef")).check().is_ok());
        for short in ["", "hunter2", "0123456789abcde"] {
            let error = config(Some(short)).check().unwrap_err().to_string();
            assert!(error.starts_with("CONFAB_CLUSTER_KEY must have") && (short.is_empty() || !error.contains(short)), "{error}");
        }
    }

    #[test]
    fn the_scheme_picks() {
        let parse = |url: Option<&str>| StoreUrl::parse("CONFAB_AUTH_STORE", url.map(Secret::from).as_ref(), Path::new("data"), "auth.db");
        assert_eq!(parse(None).unwrap(), StoreUrl::Sqlite("data/auth.db".into()));
        assert_eq!(parse(Some("sqlite:/x/a.db")).unwrap(), StoreUrl::Sqlite("/x/a.db".into()));
        assert!(matches!(parse(Some("postgres://localhost/confab")).unwrap(), StoreUrl::Postgres(_)));
        assert!(parse(Some("mysql://u:hunter2@h/d")).unwrap_err().to_string().starts_with("CONFAB_AUTH_STORE must be"));
        let error = parse(Some("postgres://u:hunter2@h:none/d")).unwrap_err().to_string();
        assert_eq!(error, "CONFAB_AUTH_STORE is not a valid postgres:// URL");
    }
}

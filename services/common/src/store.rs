//! The store of a service, selected by the scheme of a URL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};

use crate::Secret;
use crate::bus::Bus;
use crate::cluster_key::ClusterKey;
use crate::config::Migrate;
use crate::pg::{self, PostgresConfig};
use crate::process::Process;
use crate::readiness::Readiness;
use crate::sqlite;

/// How long a command waits for an unreachable store.
const COMMAND_WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Settings of programs with a store
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Stores")]
pub struct StorageConfig {
    /// Directory of local files: SQLite databases, the content of files, the signing key
    #[arg(long, env = "CONFAB_DATA_DIR", default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Settings of stores on Postgres
    #[command(flatten)]
    pub postgres: PostgresConfig,
}

impl StorageConfig {
    /// Returns these settings for a server, which reports the store's faults in `/readyz`.
    pub fn serving(&self, process: &Process) -> Self {
        let mut config = self.clone();
        config.postgres.readiness = process.readiness.clone();
        config
    }

    /// Returns these settings for a command, which waits for the store for a limited time.
    pub fn once(&self) -> Self {
        let mut config = self.clone();
        config.postgres.patience = Some(COMMAND_WAIT_LIMIT);
        config
    }

    /// Returns these settings for a `migrate` subcommand, which updates the schema.
    pub fn migrating(&self) -> Self {
        let mut config = self.once();
        config.postgres.migrate = Migrate::Auto;
        config
    }
}

/// Settings of programs that use the bus
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Bus")]
pub struct BusConfig {
    /// The bus, which announces new events immediately: `local:`; between several processes `redis://…`, with TLS
    /// `rediss://…`, or a master found by Sentinels, `redis+sentinel://host:26379,host:26379/master`. With TLS, the
    /// options `sslrootcert`, `sslcert` and `sslkey` of the URL name files of certificates, as in URLs of Postgres
    #[arg(long, env = "CONFAB_BUS", default_value = "local:", hide_env_values = true, value_name = "URL")]
    pub bus: Secret,
    /// Signs messages on the bus and requests between gateways. Every program of a cluster must have the same key.
    /// Required if the bus is Redis: at least 32 random bytes in base64 or hexadecimal, `openssl rand -base64 32`
    #[arg(long, env = "CONFAB_CLUSTER_KEY", hide_env_values = true, value_name = "SECRET")]
    pub cluster_key: Option<Secret>,
    /// Allow Redis as the bus without CONFAB_CLUSTER_KEY: any program that reaches Redis can then forge messages and
    /// logouts
    #[arg(long, env = "CONFAB_INSECURE_BUS", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub insecure_bus: bool,
}

impl BusConfig {
    /// Checks whether [`BusConfig::open`] would fail.
    ///
    /// # Errors
    /// When the URL or the key is wrong, or the bus is Redis and no key is set.
    pub fn check(&self) -> anyhow::Result<()> {
        Bus::check(&self.bus)?;
        ensure!(
            self.key()?.is_some() || self.is_local() || self.insecure_bus,
            "CONFAB_CLUSTER_KEY is not set, but CONFAB_BUS is Redis: any program that reaches it could forge messages and logouts. Set it to \
             the same key in every program (`openssl rand -base64 32` makes one), or set CONFAB_INSECURE_BUS=true"
        );
        Ok(())
    }

    /// Parses the cluster's key, if it is set.
    ///
    /// # Errors
    /// When the key is malformed, too short or not random.
    pub fn key(&self) -> anyhow::Result<Option<ClusterKey>> {
        self.cluster_key.as_ref().map(ClusterKey::parse).transpose()
    }

    /// Opens the configured bus. `/readyz` reports an outage of Redis.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn open(&self, readiness: &Readiness) -> anyhow::Result<Bus> {
        self.check()?;
        let key = self.key()?;
        if key.is_none() && !self.is_local() {
            tracing::warn!("CONFAB_INSECURE_BUS=true: any program that reaches the bus can forge messages and logouts");
        }
        Bus::reporting(&self.bus, key.as_ref().map(|key| &key.bus), readiness)
    }

    fn is_local(&self) -> bool {
        self.bus.expose() == "local:"
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Postgres(Secret),
}

impl StoreUrl {
    /// Parses the URL in `setting`; without a URL, the store is `file` in the data directory.
    ///
    /// # Errors
    /// When the URL has another scheme or is malformed. The message does not quote the URL, which may contain a
    /// password.
    pub fn parse(setting: &str, url: Option<&Secret>, data_dir: &Path, file: &str) -> anyhow::Result<Self> {
        let Some(url) = url else { return Ok(Self::Sqlite(data_dir.join(file))) };
        match url.expose() {
            text if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
                pg::check(text).map_err(|why| anyhow!("{setting} is not a valid postgres:// URL: {why:#}"))?;
                Ok(Self::Postgres(url.clone()))
            }
            text => match text.strip_prefix("sqlite:") {
                Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
                _ => bail!("{setting} must be sqlite:PATH or postgres://…"),
            },
        }
    }

    /// Checks that no other process has locked the store, if only one process may use it.
    ///
    /// # Errors
    /// When another process has locked the store.
    pub fn ensure_free(&self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(path) => sqlite::ensure_free(path),
            Self::Postgres(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "3q2+7wECAwT1bRz9q/0tYp8KXw5cHk2mVnL0aGZkQjE=";

    fn config(bus: &str, key: Option<&str>, insecure_bus: bool) -> BusConfig {
        BusConfig { bus: bus.into(), cluster_key: key.map(Secret::from), insecure_bus }
    }

    #[test]
    fn redis_requires_a_key_unless_insecure() {
        for redis in ["redis://localhost", "rediss://u:hunter2@localhost:6380"] {
            let error = config(redis, None, false).check().unwrap_err().to_string();
            assert!(
                error.starts_with("CONFAB_CLUSTER_KEY is not set") && error.contains("CONFAB_INSECURE_BUS=true"),
                "{error}"
            );
            assert!(config(redis, None, false).open(&Readiness::default()).is_err());
            assert!(config(redis, Some(KEY), false).check().is_ok() && config(redis, None, true).check().is_ok());
        }
        assert!(config("local:", None, false).check().is_ok());
    }

    #[test]
    fn guessable_key_is_rejected_on_any_bus() {
        for insecure in [false, true] {
            for bus in ["local:", "redis://localhost"] {
                for bad in ["", "hunter2", "0123456789abcdef"] {
                    let config = config(bus, Some(bad), insecure);
                    for error in [config.check().unwrap_err(), config.open(&Readiness::default()).err().unwrap()] {
                        assert!(
                            error.to_string().starts_with("CONFAB_CLUSTER_KEY must be at least 32 random bytes"),
                            "{error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_scheme_picks() {
        let parse = |url: Option<&str>| {
            StoreUrl::parse("CONFAB_AUTH_STORE", url.map(Secret::from).as_ref(), Path::new("data"), "auth.db")
        };
        assert_eq!(parse(None).unwrap(), StoreUrl::Sqlite("data/auth.db".into()));
        assert_eq!(parse(Some("sqlite:/x/a.db")).unwrap(), StoreUrl::Sqlite("/x/a.db".into()));
        assert!(matches!(parse(Some("postgres://localhost/confab")).unwrap(), StoreUrl::Postgres(_)));
        assert!(parse(Some("mysql://u:hunter2@h/d")).unwrap_err().to_string().starts_with("CONFAB_AUTH_STORE must be"));
        let error = parse(Some("postgres://u:hunter2@h:none/d")).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "CONFAB_AUTH_STORE is not a valid postgres:// URL: its account, host or port is malformed"
            ),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

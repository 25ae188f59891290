//! Settings.

use std::time::Duration;

use confab_common::Secret;
use confab_common::config::{CommonConfig, duration};
use confab_common::process::Settings;
use confab_common::store::{BusConfig, StorageConfig};

/// Settings of the auth service alone.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthConfig {
    /// Where accounts are kept: `sqlite:PATH` or `postgres://…` [default: auth.db in the data directory]
    #[arg(long, env = "CONFAB_AUTH_STORE", hide_env_values = true, value_name = "URL")]
    pub auth_store: Option<Secret>,
    /// Key that signs tokens: the PEM that `openssl genpkey -algorithm ed25519` prints, the same for every replica
    /// [default with SQLite: made and kept in the data directory]
    #[arg(long, env = "CONFAB_SIGNING_KEY", hide_env_values = true, value_name = "PEM")]
    pub signing_key: Option<Secret>,
    /// How long a token is good
    #[arg(long, env = "CONFAB_TOKEN_TTL", default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub token_ttl: Duration,
}

/// Accounts, tokens and their revocation
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "confab-auth", version, about)]
pub struct Program {
    /// Settings of every program.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Where things are kept.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// Where revocations are announced.
    #[command(flatten)]
    pub bus: BusConfig,
    /// Settings of this service alone.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Something else than serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and leave
    Migrate,
}

impl Settings for Program {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn serves(&self) -> bool {
        self.command.is_none()
    }
}

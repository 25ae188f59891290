//! The auth service's settings.

use std::time::Duration;

use anyhow::Context;
use confab_common::config::duration;
use confab_common::grpc::Reflection;
use confab_common::store::{BusConfig, StorageConfig, StoreUrl};
use confab_common::{Secret, grpc, program};
use confab_identity::CallersConfig;

use crate::key::SigningKeys;
use crate::token;

/// Settings of the auth service
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Accounts")]
pub struct AuthConfig {
    /// Where accounts are stored: `sqlite:PATH` or `postgres://…` [default: auth.db in the data directory]
    #[arg(long, env = "CONFAB_AUTH_STORE", hide_env_values = true, value_name = "URL")]
    pub auth_store: Option<Secret>,
    /// Keys that sign tokens: the PEM that `openssl genpkey -algorithm ed25519` prints, or the base64 of 32 random
    /// bytes. With several keys (at most 8) the first key signs and all keys verify; separate base64 keys by commas.
    /// Every replica must have the same keys. Required with Postgres [default: with SQLite, a key created and stored in
    /// the data directory]
    #[arg(long, env = "CONFAB_SIGNING_KEY", hide_env_values = true, value_name = "PEM")]
    pub signing_key: Option<Secret>,
    /// How long a token is valid: from 1s to 8760h. In a session with refresh tokens, at most 15m
    #[arg(long, env = "CONFAB_TOKEN_TTL", default_value = "24h", value_name = "DURATION", value_parser = life)]
    pub token_ttl: Duration,
    /// How long a refresh token is valid that the client does not use: from 1s to 8760h. Each use starts the time again
    #[arg(long, env = "CONFAB_REFRESH_TTL", default_value = "720h", value_name = "DURATION", value_parser = life)]
    pub refresh_ttl: Duration,
    /// Who may sign up: every client (`open`), clients with the code of an invite (`invite`), or none (`off`)
    #[arg(long, env = "CONFAB_SIGNUP", default_value = "open", value_name = "open|invite|off")]
    pub signup: SignupMode,
}

/// Who may sign up
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SignupMode {
    /// Every client
    Open,
    /// Clients with an invite
    Invite,
    /// None
    Off,
}

impl AuthConfig {
    /// Returns the URL of the store.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn store(&self, storage: &StorageConfig) -> anyhow::Result<StoreUrl> {
        StoreUrl::parse("CONFAB_AUTH_STORE", self.auth_store.as_ref(), &storage.data_dir, "auth.db")
    }

    /// Validates the settings without side effects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        let store = self.store(storage)?;
        store.ensure_free()?;
        self.keys(&store).map(drop)
    }

    /// Returns whether the keys are stored in the data directory.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn keeps_key(&self, storage: &StorageConfig) -> anyhow::Result<bool> {
        Ok(self.keys(&self.store(storage)?)?.is_none())
    }

    /// Returns the configured keys, or `None` if a key must be created and stored.
    pub(crate) fn keys(&self, store: &StoreUrl) -> anyhow::Result<Option<SigningKeys>> {
        match (&self.signing_key, store) {
            (Some(given), _) => SigningKeys::parse(given.expose()).context("CONFAB_SIGNING_KEY").map(Some),
            (None, StoreUrl::Sqlite(_)) => Ok(None),
            (None, StoreUrl::Postgres(_)) => anyhow::bail!(
                "CONFAB_SIGNING_KEY is not set, but with a store on Postgres every replica needs the same key: \
                 create one with `openssl genpkey -algorithm ed25519` and give it to every replica (CONFAB_SIGNING_KEY_FILE names a file)"
            ),
        }
    }
}

/// Parses the lifetime of a token.
fn life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    if token::LIFE.contains(&life) { Ok(life) } else { Err("must be from 1s to 8760h".into()) }
}

/// The auth service as a separate program.
pub type Program = program::Program<AuthArgs, Command>;

/// Settings of this program
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// Whether tools may list the gRPC methods
    #[command(flatten)]
    pub reflection: Reflection,
    /// Where revocations are announced
    #[command(flatten)]
    pub bus: BusConfig,
    /// Settings of this service
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Tokens of the users on whose behalf this service is called
    #[command(flatten)]
    pub callers: CallersConfig,
    /// URL of the room service: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_ROOM_URL", help_heading = "Services", default_value = "http://127.0.0.1:50052", value_name = "URL", value_parser = grpc::urls)]
    pub room_url: String,
}

/// Subcommands
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and exit
    Migrate,
    /// Print a one-time token with which a user sets a new password within 1 h, and exit
    ResetPassword {
        /// The username
        #[arg(value_name = "USER")]
        username: String,
    },
    /// Server keys, with which the back end of an app calls the gateways
    #[command(subcommand)]
    Key(KeyCommand),
}

/// Subcommands about server keys
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum KeyCommand {
    /// Create a server key, print it once, and exit. Only its hash is stored
    Create {
        /// What the key may do: users, tokens, keys, audit, rooms and messages, separated by commas
        #[arg(long, required = true, value_name = "SCOPES", value_delimiter = ',')]
        scopes: Vec<String>,
        /// What the key is for, up to 80 characters
        #[arg(long, default_value = "", value_name = "NAME")]
        name: String,
    },
}

impl program::ServiceArgs for AuthArgs {
    const NAME: &'static str = "confab-auth";
    const ABOUT: &'static str = "Confab's auth service: accounts, tokens and the revocation of tokens";
    const LISTEN: &'static str = "127.0.0.1:50051";

    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.callers.issuers.check()?;
        self.bus.check()?;
        self.auth.check(storage)
    }
}

#[cfg(test)]
mod tests;

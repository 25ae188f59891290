//! The message service's settings.

use confab_common::grpc::Reflection;
use confab_common::store::{BusConfig, StorageConfig, StoreUrl};
use confab_common::{Secret, grpc, program};
use confab_identity::CallersConfig;
use confab_proto::partition;

/// Settings of the message service
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Messages")]
pub struct MessageConfig {
    /// Where the log is stored: `sqlite:PATH` or `postgres://…` [default: message.db in the data directory]
    #[arg(long, env = "CONFAB_MESSAGE_STORE", hide_env_values = true, value_name = "URL")]
    pub message_store: Option<Secret>,
    /// Number of partitions of the log: a power of two up to 4096, fixed when the log is created
    #[arg(long, env = "CONFAB_PARTITIONS", default_value_t = partition::DEFAULT_COUNT, value_name = "N", value_parser = partitions)]
    pub partitions: u32,
    /// Whether users can search messages: the message service then has an index of them, which takes about as much space
    /// as their texts
    #[arg(long, env = "CONFAB_SEARCH", default_value = "on", value_name = "on|off")]
    pub search: Switch,
}

/// Whether a part of the service is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// In use
    On,
    /// Not in use
    Off,
}

impl Switch {
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

fn partitions(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| partition::is_valid_count(*count));
    count.ok_or_else(|| format!("must be a power of two up to {}", partition::MAX_COUNT))
}

impl MessageConfig {
    /// Returns the URL of the store.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn store(&self, storage: &StorageConfig) -> anyhow::Result<StoreUrl> {
        StoreUrl::parse("CONFAB_MESSAGE_STORE", self.message_store.as_ref(), &storage.data_dir, "message.db")
    }

    /// Validates the settings without side effects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.store(storage)?.ensure_free()
    }
}

/// The message service as a separate program.
pub type Program = program::Program<MessageArgs, Command>;

/// Settings of this program
#[derive(Debug, Clone, clap::Args)]
pub struct MessageArgs {
    /// Whether tools may list the gRPC methods
    #[command(flatten)]
    pub reflection: Reflection,
    /// The bus
    #[command(flatten)]
    pub bus: BusConfig,
    /// Settings of this service
    #[command(flatten)]
    pub message: MessageConfig,
    /// Tokens of the users on whose behalf this service is called
    #[command(flatten)]
    pub callers: CallersConfig,
    /// URL of the auth service, with which the service verifies tokens: http://host:port, with TLS https://host:port, or
    /// several separated by commas; all addresses of a name are used
    #[arg(long, env = "CONFAB_AUTH_URL", help_heading = "Services", default_value = "http://127.0.0.1:50051", value_name = "URL", value_parser = grpc::urls)]
    pub auth_url: String,
    /// URL of the room service: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_ROOM_URL", help_heading = "Services", default_value = "http://127.0.0.1:50052", value_name = "URL", value_parser = grpc::urls)]
    pub room_url: String,
    /// URL of the file service: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_FILE_URL", help_heading = "Services", default_value = "http://127.0.0.1:50054", value_name = "URL", value_parser = grpc::urls)]
    pub file_url: String,
}

impl program::ServiceArgs for MessageArgs {
    const NAME: &'static str = "confab-message";
    const ABOUT: &'static str = "Confab's message service: the log of all messages and events";
    const LISTEN: &'static str = "127.0.0.1:50053";

    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.callers.issuers.check()?;
        self.bus.check()?;
        self.message.check(storage)
    }
}

/// Subcommands
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and exit
    Migrate,
    /// Renew the log's epoch after its database was restored to an older state, and exit
    RenewEpoch,
    /// Have the running replicas build the index of messages for searches again from the log, and exit
    Reindex,
    /// After an upgrade: raise the log to the newest format once no program of the version before is running, and exit
    FinishUpgrade,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use confab_common::process::Settings;

    use super::*;

    #[test]
    fn flags_and_defaults() {
        Program::command().debug_assert();
        let program = Program::parse_from(["confab-message", "renew-epoch", "--message-store=sqlite:x.db"]);
        assert_eq!(program.service.message.message_store, Some("sqlite:x.db".into()));
        assert_eq!(program.command, Some(Command::RenewEpoch));
        assert_eq!(program.service.message.search, Switch::On);
        // The gateway's default for this service.
        assert_eq!(Program::parse_from(["confab-message"]).common.listen.port(), 50053);
    }

    #[test]
    fn wrong_settings_are_rejected_at_start() {
        for bad in ["--message-store=mysql://x", "--bus=amqp://x", "--room-url=nowhere", "--partitions=3"] {
            let checked = Program::try_parse_from(["confab-message", bad]).map(|program| program.check());
            assert!(!matches!(checked, Ok(Ok(()))), "{bad}");
        }
    }
}

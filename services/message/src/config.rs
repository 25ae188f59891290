//! The message service's settings.

use confab_common::Secret;
use confab_common::config::CommonConfig;
use confab_common::process::Settings;
use confab_common::store::{BusConfig, StorageConfig};
use confab_proto::partition;

/// Settings of the message service itself.
#[derive(Debug, Clone, clap::Args)]
pub struct MessageConfig {
    /// Where the log is kept: `sqlite:PATH` or `postgres://…`; without it `message.db` in the data directory
    #[arg(long, env = "CONFAB_MESSAGE_STORE", hide_env_values = true, value_name = "URL")]
    pub message_store: Option<Secret>,
    /// How many partitions the log has: a power of two, fixed when the log is created
    #[arg(long, env = "CONFAB_PARTITIONS", default_value_t = partition::DEFAULT_COUNT, value_name = "N", value_parser = partitions)]
    pub partitions: u32,
}

fn partitions(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| partition::is_valid_count(*count));
    count.ok_or_else(|| format!("must be a power of two up to {}", partition::MAX_COUNT))
}

/// Confab's message service: the log of everything that was said.
#[derive(Debug, clap::Parser)]
#[command(name = "confab-message", version, about, mut_arg("listen", |listen| listen.default_value("127.0.0.1:50053")))]
pub struct Program {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Shared by all programs.
    #[command(flatten)]
    pub common: CommonConfig,
    /// The store.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// The bus.
    #[command(flatten)]
    pub bus: BusConfig,
    /// The service itself.
    #[command(flatten)]
    pub message: MessageConfig,
    /// Where the room service is: http://host:port, or several separated by commas
    #[arg(long, env = "CONFAB_ROOM_URL", default_value = "http://127.0.0.1:50052", value_name = "URL")]
    pub room_url: String,
}

/// What the program can do besides serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and end
    Migrate,
    /// Give the log a new epoch, after its database was restored to an older state, and end
    RenewEpoch,
}

impl Settings for Program {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn serves(&self) -> bool {
        self.command.is_none()
    }
}

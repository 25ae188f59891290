//! The settings of the embedded server: those of every part, each of which can be pointed elsewhere by a URL.

use confab_auth::AuthConfig;
use confab_common::config::CommonConfig;
use confab_common::process::Settings;
use confab_common::store::{BusConfig, StorageConfig};
use confab_gateway::config::GatewayConfig;
use confab_message::MessageConfig;
use confab_room::RoomConfig;

/// The whole of Confab as one program.
#[derive(Debug, clap::Parser)]
#[command(
    name = "confab",
    version,
    about = "A chat back end: REST and Socket.IO, rooms and messages, nothing to install",
    after_help = "Without any setting it listens on 127.0.0.1:8080 and keeps its data in ./data.\n\
                  Every --flag can also be given as the CONFAB_ variable named beside it, or in a file named by CONFAB_…_FILE."
)]
pub struct Program {
    /// Settings of every program.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Where data is kept.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// The bus.
    #[command(flatten)]
    pub bus: BusConfig,
    /// Accounts and tokens.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Rooms.
    #[command(flatten)]
    pub room: RoomConfig,
    /// The log.
    #[command(flatten)]
    pub message: MessageConfig,
    /// The edge.
    #[command(flatten)]
    pub gateway: GatewayConfig,
    /// Use the auth service there instead of the one within: http://host:port
    #[arg(long, env = "CONFAB_AUTH_URL", value_name = "URL")]
    pub auth_url: Option<String>,
    /// Use the room service there instead of the one within
    #[arg(long, env = "CONFAB_ROOM_URL", value_name = "URL")]
    pub room_url: Option<String>,
    /// Use the message service there instead of the one within
    #[arg(long, env = "CONFAB_MESSAGE_URL", value_name = "URL")]
    pub message_url: Option<String>,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do instead of serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Bring the stores' schemas up to date and exit
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

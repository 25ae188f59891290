//! Settings of the room service.

use confab_common::Secret;
use confab_common::config::CommonConfig;
use confab_common::process::Settings;
use confab_common::store::StorageConfig;

/// The service's own settings.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RoomConfig {
    /// Where rooms are kept: `sqlite:PATH` or `postgres://…` [default: room.db in the data directory]
    #[arg(long, env = "CONFAB_ROOM_STORE", hide_env_values = true, value_name = "URL")]
    pub room_store: Option<Secret>,
}

/// Confab's room service: who made which room and what it is called
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "confab-room", version, about, mut_arg("listen", |listen| listen.default_value("127.0.0.1:50052")))]
pub struct Program {
    /// Settings of every program.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Settings of stores.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// The service's own settings.
    #[command(flatten)]
    pub room: RoomConfig,
    /// The message service, which keeps the log: one URL, or several separated by commas
    #[arg(long, env = "CONFAB_MESSAGE_URL", default_value = "http://127.0.0.1:50053", value_name = "URL")]
    pub message_url: String,
    /// What to do other than serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do other than serve.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Command {
    /// Brings the database schema up to date and ends
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn flags_and_defaults() {
        Program::command().debug_assert();
        let program = Program::parse_from(["confab-room", "--room-store=sqlite:x.db", "migrate"]);
        assert_eq!(program.room.room_store, Some("sqlite:x.db".into()));
        assert!(matches!(program.command, Some(Command::Migrate)));
        // Where the gateway looks for it unless told otherwise.
        assert_eq!(Program::parse_from(["confab-room"]).common.listen.port(), 50052);
    }
}

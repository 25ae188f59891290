//! Settings of the room service.

use confab_common::grpc::Reflection;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_common::{Secret, grpc, program};
use confab_identity::CallersConfig;

/// Settings of the room service
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Rooms")]
pub struct RoomConfig {
    /// Where rooms are stored: `sqlite:PATH` or `postgres://…` [default: room.db in the data directory]
    #[arg(long, env = "CONFAB_ROOM_STORE", hide_env_values = true, value_name = "URL")]
    pub room_store: Option<Secret>,
    /// Most rooms of one user, as a member, an admin or the owner: above that, the user creates and joins no further
    /// room. Other users may add the user to half of them. 0 = no limit
    #[arg(long, env = "CONFAB_MAX_ROOMS_PER_USER", default_value_t = 1000, value_name = "N")]
    pub max_rooms_per_user: u32,
}

impl RoomConfig {
    /// Returns the URL of the store.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn store(&self, storage: &StorageConfig) -> anyhow::Result<StoreUrl> {
        StoreUrl::parse("CONFAB_ROOM_STORE", self.room_store.as_ref(), &storage.data_dir, "room.db")
    }

    /// Validates the settings without side effects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.store(storage)?.ensure_free()
    }
}

/// The room service as a separate program.
pub type Program = program::Program<RoomArgs>;

/// Settings of this program
#[derive(Debug, Clone, clap::Args)]
pub struct RoomArgs {
    /// Whether tools may list the gRPC methods
    #[command(flatten)]
    pub reflection: Reflection,
    /// Settings of this service
    #[command(flatten)]
    pub room: RoomConfig,
    /// Tokens of the users on whose behalf this service is called
    #[command(flatten)]
    pub callers: CallersConfig,
    /// URL of the auth service, with which the service verifies tokens: http://host:port, with TLS https://host:port, or
    /// several separated by commas; all addresses of a name are used
    #[arg(long, env = "CONFAB_AUTH_URL", help_heading = "Services", default_value = "http://127.0.0.1:50051", value_name = "URL", value_parser = grpc::urls)]
    pub auth_url: String,
    /// URL of the message service: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_MESSAGE_URL", help_heading = "Services", default_value = "http://127.0.0.1:50053", value_name = "URL", value_parser = grpc::urls)]
    pub message_url: String,
}

impl program::ServiceArgs for RoomArgs {
    const NAME: &'static str = "confab-room";
    const ABOUT: &'static str = "Confab's room service: rooms, their names and their members";
    const LISTEN: &'static str = "127.0.0.1:50052";

    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.callers.issuers.check()?;
        self.room.check(storage)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use confab_common::process::Settings;
    use confab_common::program::Command;

    use super::*;

    #[test]
    fn flags_and_defaults() {
        Program::command().debug_assert();
        let program = Program::parse_from(["confab-room", "migrate", "--room-store=sqlite:x.db"]);
        assert_eq!(program.service.room.room_store, Some("sqlite:x.db".into()));
        assert_eq!(program.service.room.max_rooms_per_user, 1000);
        assert_eq!(program.command, Some(Command::Migrate));
        // The gateway's default for this service.
        assert_eq!(Program::parse_from(["confab-room"]).common.listen.port(), 50052);
    }

    #[test]
    fn wrong_settings_are_rejected_without_side_effects() {
        assert!(Program::parse_from(["confab-room", "--room-store=mysql://x"]).check().is_err());
        assert!(Program::try_parse_from(["confab-room", "--message-url=nowhere"]).is_err());
    }
}

//! The settings of the embedded server: those of every service. A URL replaces an embedded service by a remote one.

use std::path::{Path, PathBuf};

use confab_auth::{AuthConfig, KeyCommand};
use confab_common::store::{BusConfig, StorageConfig, StoreUrl};
use confab_common::{grpc, program};
use confab_file::FileConfig;
use confab_gateway::config::GatewayConfig;
use confab_message::MessageConfig;
use confab_room::RoomConfig;

pub type Program = program::Program<Parts, Command>;

/// Subcommands
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schemas up to date and exit
    Migrate,
    /// Renew the log's epoch after its database was restored to an older state, and exit
    RenewEpoch,
    /// After an upgrade with Postgres: raise the log to the newest format once no program of the version before is
    /// running, and exit. With SQLite, the server does this at start
    FinishUpgrade,
    /// Build the index of messages for searches again from the log, and exit. With SQLite, only while the server is
    /// stopped, which then builds the index at its next start
    Reindex,
    /// Make this installation the owner of the object store (CONFAB_OBJECTS) instead of its current owner, and exit
    ClaimObjects,
    /// Write all durable data to a directory, for an import into other stores, and exit
    Export {
        /// An empty or new directory; it will contain password hashes
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Read an export into the configured stores, which must be empty, and exit
    Import {
        /// The directory of the export
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Server keys, with which the back end of an app calls the server. With SQLite, only while the server is stopped
    #[command(subcommand)]
    Key(KeyCommand),
}

/// The services, and the URLs of remote services
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Without any setting it listens on 127.0.0.1:8080 and stores its data in ./data.\n\
                  Every --flag can also be given as the CONFAB_ variable named beside it, or in a file named by CONFAB_…_FILE.")]
pub struct Parts {
    /// The bus
    #[command(flatten)]
    pub bus: BusConfig,
    /// Accounts and tokens
    #[command(flatten)]
    pub auth: AuthConfig,
    /// Rooms
    #[command(flatten)]
    pub room: RoomConfig,
    /// The log
    #[command(flatten)]
    pub message: MessageConfig,
    /// Files
    #[command(flatten)]
    pub file: FileConfig,
    /// The gateway
    #[command(flatten)]
    pub gateway: GatewayConfig,
    /// Use the auth service at this URL instead of the embedded one: http://host:port, or with TLS https://host:port
    #[arg(long, env = "CONFAB_AUTH_URL", help_heading = "Services", value_name = "URL", value_parser = grpc::urls)]
    pub auth_url: Option<String>,
    /// Use the room service at this URL instead of the embedded one
    #[arg(long, env = "CONFAB_ROOM_URL", help_heading = "Services", value_name = "URL", value_parser = grpc::urls)]
    pub room_url: Option<String>,
    /// Use the message service at this URL instead of the embedded one
    #[arg(long, env = "CONFAB_MESSAGE_URL", help_heading = "Services", value_name = "URL", value_parser = grpc::urls)]
    pub message_url: Option<String>,
    /// Use the file service at this URL instead of the embedded one
    #[arg(long, env = "CONFAB_FILE_URL", help_heading = "Services", value_name = "URL", value_parser = grpc::urls)]
    pub file_url: Option<String>,
}

impl program::ServiceArgs for Parts {
    const NAME: &'static str = "confab";
    const ABOUT: &'static str = "A chat back end: REST and Socket.IO, rooms, messages and files, nothing to install";
    const LISTEN: &'static str = "127.0.0.1:8080";

    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.bus.check()?;
        self.gateway.issuers.check()?;
        if self.auth_url.is_none() {
            self.auth.check(storage)?;
        }
        if self.room_url.is_none() {
            self.room.check(storage)?;
        }
        if self.message_url.is_none() {
            self.message.check(storage)?;
        }
        if self.file_url.is_none() {
            self.file.check(storage)?;
        }
        Ok(())
    }
}

impl Parts {
    /// Returns the stores of the embedded services.
    ///
    /// # Errors
    /// When a URL is wrong.
    pub fn stores(&self, storage: &StorageConfig) -> anyhow::Result<Vec<StoreUrl>> {
        let stores = [
            (&self.auth_url, self.auth.store(storage)),
            (&self.room_url, self.room.store(storage)),
            (&self.message_url, self.message.store(storage)),
            (&self.file_url, self.file.store(storage)),
        ];
        stores.into_iter().filter(|(elsewhere, _)| elsewhere.is_none()).map(|(_, store)| store).collect()
    }
    /// Returns whether a service stores anything in the data directory.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn keeps_here(&self, storage: &StorageConfig) -> anyhow::Result<bool> {
        let here = |path: &Path| path.starts_with(&storage.data_dir);
        let key = self.auth_url.is_none() && self.auth.keeps_key(storage)?;
        let bytes = self.file_url.is_none()
            && match &self.file.objects.objects {
                None => true,
                Some(url) => url.expose().strip_prefix("file:").is_some_and(|path| here(Path::new(path))),
            };
        let rows = self.stores(storage)?.iter().any(|store| matches!(store, StoreUrl::Sqlite(path) if here(path)));
        Ok(key || bytes || rows)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use confab_common::process::Settings;

    use super::*;

    const ELSEWHERE: [&str; 4] = [
        "--auth-url=http://h:1",
        "--room-url=http://h:1",
        "--message-url=http://h:1",
        "--file-url=http://h:1,http://h:2",
    ];

    fn with(arguments: &[&str]) -> anyhow::Result<Program> {
        let program = Program::try_parse_from(["confab"].iter().chain(arguments))?;
        program.check().map(|()| program)
    }

    #[test]
    fn wrong_settings_are_rejected_at_start() {
        Program::command().debug_assert();
        assert_eq!(with(&[]).unwrap().common.listen.port(), 8080);
        for bad in [
            "--auth-store=mysql://x",
            "--room-store=mysql://x",
            "--message-store=postgres://h:none/d",
            "--file-store=sqlite:",
            "--objects=gs://x",
            "--bus=amqp://x",
            "--signing-key=hunter2",
            "--auth-url=nowhere",
            "--room-url=nowhere",
            "--message-url=nowhere",
            "--file-url=nowhere",
            "--request-timeout=soon",
            "--issuers={}",
        ] {
            assert!(with(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn remote_service_needs_no_settings() {
        assert!(with(&["--auth-store=postgres://h/d"]).is_err(), "a store on Postgres requires a key");
        assert!(with(&["--auth-store=postgres://h/d", "--auth-url=http://h:1"]).is_ok());
    }

    #[test]
    fn local_stores_use_the_data_directory() {
        let keeps = |arguments: &[&str]| {
            let program = with(arguments).unwrap();
            program.service.keeps_here(&program.storage).unwrap()
        };
        assert!(keeps(&[]) && keeps(&ELSEWHERE[1..]) && keeps(&ELSEWHERE[..3]));
        assert!(!keeps(&ELSEWHERE));
        let nothing =
            ["--file-store=postgres://h/d", "--objects=file:/srv/objects", ELSEWHERE[0], ELSEWHERE[1], ELSEWHERE[2]];
        assert!(!keeps(&nothing));
        assert!(keeps(&[&nothing[..], &["--data-dir=/srv"]].concat()));
        // The key that signs tokens.
        assert!(keeps(&["--auth-store=sqlite:/srv/auth.db", ELSEWHERE[1], ELSEWHERE[2], ELSEWHERE[3]]));
    }
}

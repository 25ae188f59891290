//! The file service's settings.

use std::time::Duration;

use confab_common::config::{at_least_one, duration, some_time};
use confab_common::grpc::Reflection;
use confab_common::store::{StorageConfig, StoreUrl};
use confab_common::{Secret, grpc, program};
use confab_identity::CallersConfig;

use crate::object::{self, ObjectsConfig};
use crate::quota::Quota;

/// The largest file size that can be configured, in bytes (64 GiB).
pub const LARGEST: u64 = 64 << 30;

/// Minimum memory for uploads, in bytes (16 MiB): two parts of the largest file.
const LEAST_MEMORY: usize = 16 << 20;

/// Settings of the file service
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Files")]
pub struct FileConfig {
    /// Where the files' metadata is stored: `sqlite:PATH` or `postgres://…` [default: file.db in the data directory]
    #[arg(long, env = "CONFAB_FILE_STORE", hide_env_values = true, value_name = "URL")]
    pub file_store: Option<Secret>,
    /// Where the files' content is stored
    #[command(flatten)]
    pub objects: ObjectsConfig,
    /// Largest file, in bytes; at most 64 GiB
    #[arg(long, env = "CONFAB_MAX_FILE_SIZE", default_value_t = 100 << 20, value_name = "BYTES", value_parser = file_size)]
    pub max_file_size: u64,
    /// Most files that one user stores, with pictures and files in rooms; an upload above that fails with 413; 0 = no
    /// limit
    #[arg(long, env = "CONFAB_MAX_FILES_PER_USER", default_value_t = 100_000, value_name = "N")]
    pub max_files_per_user: u64,
    /// Most bytes of all files of one user together; an upload above that fails with 413; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_BYTES_PER_USER", default_value_t = 10 << 30, value_name = "BYTES")]
    pub max_bytes_per_user: u64,
    /// Maximum concurrent uploads in one process. One user alone gets nearly half of them, fewer the more users upload;
    /// a further upload waits 2 s and then fails with 429, or with 503 when the maximum is reached
    #[arg(long, env = "CONFAB_MAX_UPLOADS", default_value_t = 100, value_name = "N", value_parser = at_least_one)]
    pub max_uploads: usize,
    /// Maximum concurrent downloads in one process, shared between users in the same way; downloads by links to one
    /// user's files count as one user's
    #[arg(long, env = "CONFAB_MAX_DOWNLOADS", default_value_t = 500, value_name = "N", value_parser = at_least_one)]
    pub max_downloads: usize,
    /// Memory for the content of all uploads of one process on its way to the store, at least 16 MiB. One user alone
    /// gets two thirds of it, less the more users upload; an upload waits for memory and fails with 503 after 12 s
    #[arg(long, env = "CONFAB_UPLOAD_MEMORY", default_value_t = 128 << 20, value_name = "BYTES", value_parser = upload_memory)]
    pub upload_memory: usize,
    /// How long a link to a file is valid
    #[arg(long, env = "CONFAB_LINK_TTL", default_value = "5m", value_name = "DURATION", value_parser = some_time)]
    pub link_ttl: Duration,
    /// How long a link to audio or video is valid: a player requests it again whenever its user resumes or seeks
    #[arg(long, env = "CONFAB_MEDIA_LINK_TTL", default_value = "6h", value_name = "DURATION", value_parser = some_time)]
    pub media_link_ttl: Duration,
    /// Minimum age of an object without a file before it is removed: longer than any upload in progress. Raise it while
    /// a backup is restored
    #[arg(long, env = "CONFAB_ORPHAN_AGE", default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub orphan_age: Duration,
    /// How often to search for objects without a file
    #[arg(long, env = "CONFAB_SWEEP_EVERY", default_value = "1h", value_name = "DURATION", value_parser = some_time)]
    pub sweep_every: Duration,
}

fn file_size(text: &str) -> Result<u64, String> {
    let size = text.parse().ok().filter(|size| (1..=LARGEST).contains(size));
    size.ok_or_else(|| format!("must be a number of bytes from 1 to {LARGEST}, without a unit"))
}

fn upload_memory(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| *bytes >= LEAST_MEMORY);
    bytes.ok_or_else(|| format!("must be a number of bytes, at least {LEAST_MEMORY}, without a unit"))
}

impl FileConfig {
    /// Returns the URL of the store.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn store(&self, storage: &StorageConfig) -> anyhow::Result<StoreUrl> {
        StoreUrl::parse("CONFAB_FILE_STORE", self.file_store.as_ref(), &storage.data_dir, "file.db")
    }

    /// Returns what one user may store.
    pub(crate) fn quota(&self) -> Quota {
        Quota { files: self.max_files_per_user, bytes: self.max_bytes_per_user }
    }

    /// Validates the settings without side effects.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.store(storage)?.ensure_free()?;
        object::open(&self.objects, &storage.data_dir, self.max_file_size).map(drop)
    }
}

/// The file service as a separate program.
pub type Program = program::Program<FileArgs, Command>;

/// Settings of this program
#[derive(Debug, Clone, clap::Args)]
pub struct FileArgs {
    /// Whether tools may list the gRPC methods
    #[command(flatten)]
    pub reflection: Reflection,
    /// Settings of this service
    #[command(flatten)]
    pub file: FileConfig,
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
    /// URL of the message service: http://host:port, with TLS https://host:port, or several separated by commas; all
    /// addresses of a name are used
    #[arg(long, env = "CONFAB_MESSAGE_URL", help_heading = "Services", default_value = "http://127.0.0.1:50053", value_name = "URL", value_parser = grpc::urls)]
    pub message_url: String,
}

impl program::ServiceArgs for FileArgs {
    const NAME: &'static str = "confab-file";
    const ABOUT: &'static str = "Confab's file service: files, their uploaders and their content";
    const LISTEN: &'static str = "127.0.0.1:50054";

    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()> {
        self.callers.issuers.check()?;
        self.file.check(storage)
    }
}

/// Subcommands
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and exit
    Migrate,
    /// Make this installation the owner of the object store (CONFAB_OBJECTS) instead of its current owner, and exit
    ClaimObjects,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use confab_common::process::Settings;

    use super::*;

    #[test]
    fn flags_and_defaults() {
        Program::command().debug_assert();
        let program = Program::parse_from(["confab-file", "migrate", "--file-store=sqlite:x.db"]);
        assert_eq!(program.service.file.file_store, Some("sqlite:x.db".into()));
        assert_eq!(program.command, Some(Command::Migrate));

        let program = Program::parse_from(["confab-file"]);
        // The gateway's default for this service.
        assert_eq!(program.common.listen.port(), 50054);
        let FileConfig {
            max_file_size,
            max_files_per_user,
            max_bytes_per_user,
            max_uploads,
            upload_memory,
            orphan_age,
            sweep_every,
            link_ttl,
            media_link_ttl,
            ..
        } = program.service.file;
        assert_eq!((max_file_size, max_uploads, upload_memory), (104_857_600, 100, 134_217_728));
        assert_eq!((max_files_per_user, max_bytes_per_user), (100_000, 10_737_418_240));
        assert_eq!((orphan_age, sweep_every), (Duration::from_secs(86_400), Duration::from_secs(3600)));
        assert_eq!((link_ttl, media_link_ttl), (Duration::from_secs(300), Duration::from_secs(21_600)));
    }

    #[test]
    fn wrong_settings_are_rejected_at_start() {
        for bad in ["--file-store=mysql://x", "--objects=gs://x", "--objects=s3://x"] {
            assert!(Program::parse_from(["confab-file", bad]).check().is_err(), "{bad}");
        }
        assert!(Program::parse_from(["confab-file", "--max-file-size=68719476736"]).check().is_ok());
        for bad in [
            "--max-file-size=0",
            "--max-file-size=68719476737",
            "--max-file-size=100MiB",
            "--max-uploads=0",
            "--max-downloads=0",
            "--upload-memory=16777215",
            "--upload-memory=128MiB",
            "--sweep-every=0s",
            "--link-ttl=0s",
            "--media-link-ttl=6",
            "--room-url=nowhere",
        ] {
            assert!(Program::try_parse_from(["confab-file", bad]).is_err(), "{bad}");
        }
    }
}

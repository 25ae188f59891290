//! Servers of newer releases than Debian's, which `scripts/ensure-newer-servers.sh` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::postgres;

/// The programs of the newer servers.
pub struct Newer {
    /// The directory of Postgres' programs.
    pub postgres: PathBuf,
    /// A directory with Valkey under the name of Redis, for a PATH.
    pub redis: PathBuf,
}

impl Newer {
    /// Finds the programs. If the user that runs Postgres cannot reach them, as in a checkout in root's home, they are
    /// copied below `directory`.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn find(directory: &Path) -> anyhow::Result<Self> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/newer");
        let found = installed
            .join("postgres")
            .canonicalize()
            .context("scripts/ensure-newer-servers.sh installs the newer servers")?;
        let redis = installed.join("redis").canonicalize()?;
        let postgres = if postgres::can_run(&found)? { found } else { copy(&found, &directory.join("newer"))? };
        Ok(Self { postgres: postgres.join("bin"), redis })
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    ensure!(Command::new("cp").arg("-r").args([from, to]).status()?.success(), "cannot copy {}", from.display());
    Ok(to.to_path_buf())
}

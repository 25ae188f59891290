//! The servers that Confab needs: installed by `make`, with ports and directories of the test run.

pub mod newer;
pub mod nginx;
pub mod postgres;
pub mod redis;
pub mod seaweed;

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Finds a server's program on the PATH or in Debian's directories for administrators.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed"))
}

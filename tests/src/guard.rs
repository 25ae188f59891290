//! Removes everything that a test run leaves behind, however it ends.
//!
//! A small separate process holds the other end of a pipe. When this process ends, by return, panic or `kill -9`, the
//! pipe breaks. The guard then kills all processes that work below the directory, and removes it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use crate::programs;

/// A new directory, removed at the end together with all processes that work in it.
pub struct Guard {
    directory: PathBuf,
    process: Child,
}

impl Guard {
    /// Creates a directory for a test run's servers, on the disk of temporary files.
    ///
    /// # Errors
    /// When it cannot be created, or the guard's program is not built.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("confab-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let directory = directory.canonicalize()?;
        let mut command = Command::new(programs().join("guard"));
        let process = command
            .arg(&directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run guard; `cargo build --workspace` builds it")?;
        Ok(Self { directory, process })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

//! The guard of a directory of servers: no server outlives the process that started it.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

/// Waits until its standard input ends; then kills all processes that work below a directory, and removes the directory
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The directory; it is kept if KEEP_TEST_FILES is set
    directory: PathBuf,
}

fn main() {
    let Arguments { directory } = Arguments::parse();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    // Dying processes may still write, so the directory may not be empty at the first attempt.
    while directory.exists() && Instant::now() < deadline {
        confab_tests::daemon::sweep(&directory);
        let kept = std::env::var_os("KEEP_TEST_FILES").is_some();
        if kept || std::fs::remove_dir_all(&directory).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

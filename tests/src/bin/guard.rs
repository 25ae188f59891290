//! `guard DIRECTORY`: when its standard input ends, kills what works below the directory and removes it.

use std::io::Read;
use std::time::{Duration, Instant};

fn main() {
    let Some(directory) = std::env::args_os().nth(1).map(std::path::PathBuf::from) else { return };
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    // What is dying may still write, so that the directory is not empty at the first try.
    while directory.exists() && Instant::now() < deadline {
        confab_tests::daemon::sweep(&directory);
        let kept = std::env::var_os("KEEP_TEST_FILES").is_some();
        if kept || std::fs::remove_dir_all(&directory).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! Code that the end-to-end tests, `make test` and `make cluster-up` share: the built programs and their servers as
//! child processes, and clients of the public API.

pub mod api;
pub mod certificates;
pub mod cgroup;
pub mod chaos;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod contract;
pub mod conversation;
pub mod daemon;
pub mod embedded;
pub mod exposition;
pub mod form;
pub mod guard;
pub mod issuer;
pub mod load;
pub mod manifests;
pub mod objects;
pub mod plan;
pub mod raw;
pub mod replay;
pub mod secrets;
pub mod server_keys;
pub mod servers;
pub mod stock;
pub mod uploads;
pub mod wait;
pub mod words;

use std::path::PathBuf;

/// Returns the directory of the programs of this build: that of the running program, or its parent for a test.
///
/// # Panics
/// When the running program has no path.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let directory = own.parent().expect("a program is in a directory");
    if directory.ends_with("deps") {
        directory.parent().expect("deps is in a directory").to_path_buf()
    } else {
        directory.to_path_buf()
    }
}

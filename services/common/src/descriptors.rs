//! File descriptors: each connection takes one, and the process must keep some for other uses.

use rustix::process::{Resource, getrlimit};

/// Descriptors reserved for other uses: listeners, the admin port, calls to services, stores and their readers,
/// temporary files. A process with a limit below twice this number reserves half of its limit.
const RESERVE: u64 = 256;

pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns how many of `limit` descriptors connections may take.
pub fn for_connections(limit: u64) -> u64 {
    limit - RESERVE.min(limit / 2)
}

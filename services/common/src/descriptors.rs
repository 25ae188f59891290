//! Descriptors: each connection takes one, and some must remain for everything else.

use rustix::process::{Resource, getrlimit};

/// Descriptors reserved for everything else: listeners, the admin port, calls to services, stores and their readers,
/// temporary files. A process with a limit below twice this number reserves half.
const RESERVE: u64 = 256;

/// The descriptor limit of this process.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many of `limit` descriptors connections may take.
pub fn for_connections(limit: u64) -> u64 {
    limit - RESERVE.min(limit / 2)
}

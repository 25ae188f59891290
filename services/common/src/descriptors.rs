//! Descriptors: each connection takes one, and some must be left for all else.

use rustix::process::{Resource, getrlimit};

/// Descriptors that are left for all else: listeners, the admin port, calls to services, stores and their readers, files that
/// come and go. A process that may have fewer than twice as many leaves half.
const RESERVE: u64 = 256;

/// How many this process may have.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many of so many connections may take.
pub fn for_connections(limit: u64) -> u64 {
    limit - RESERVE.min(limit / 2)
}

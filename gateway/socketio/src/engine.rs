//! The HTTP side: opens sessions and serves them over both transports.

use std::time::Duration;

mod decoder;
pub(crate) mod handshake;
pub(crate) mod payload;
pub(crate) mod peers;
mod polling;
mod proxy;
mod websocket;

/// The session of a client that reads none of its queued frames for this long is closed.
const READ_STALL_LIMIT: Duration = Duration::from_secs(10);

//! The HTTP side: opens sessions, and serves them over both transports.

use std::time::Duration;

mod decoder;
pub(crate) mod handshake;
pub(crate) mod payload;
pub(crate) mod peers;
mod polling;
mod proxy;
mod websocket;

/// A client that takes nothing of what waits for it for this long is closed.
const READ_STALL_LIMIT: Duration = Duration::from_secs(10);

//! gRPC between Confab programs: one client type, for a service in this process and for a service on many replicas
//! elsewhere.

mod connection;
pub mod discovery;
mod failure;
mod measure;
mod names;
mod network;
mod operation;
mod peer;
mod reflection;
mod replicas;
mod role;
mod roles;
mod security;
mod server;
mod services;
mod tls;
mod traced;
mod transport;
mod urls;

use std::time::Duration;

pub use names::PeerNames;
pub use network::{Uncertain, connect};
pub use operation::operation;
pub use peer::{Peer, caller};
pub use reflection::Reflection;
pub use role::{Role, Roles};
pub use roles::CALLERS;
pub use security::Security;
pub use server::serve;
pub use services::Services;
pub use transport::{Binder, Call, Streams, Transport, in_process, late, request};
pub use urls::{targets, urls};

/// Largest gRPC message, sent or received, in bytes (8 MiB). All generated clients and servers use it.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Maximum age of a connection to a service. A caller then connects again, with its present certificate and roles.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// Concurrent calls and streams on one connection; further calls wait.
const MAX_STREAMS: u32 = 1024;
/// HTTP/2 window of one stream: unread bytes in transit (256 KiB).
const STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2 window of one connection: room for all of its streams, so that a slow reader never blocks other streams.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Largest HTTP/2 frame, in bytes. Each frame costs system calls at both ends, so large files need large frames.
const FRAME: u32 = 256 * 1024;

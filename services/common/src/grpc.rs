//! gRPC between Confab programs: one client type, whether the service is in this process or on many replicas elsewhere.

mod connection;
pub mod discovery;
mod failure;
mod measure;
mod network;
mod reflection;
mod replicas;
mod server;
mod traced;
mod transport;

pub use network::{connect, targets, urls};
pub use reflection::Reflection;
pub use server::serve;
pub use transport::{Binder, Call, Streams, Transport, in_process, late, request};

/// Largest message that is sent or accepted, in bytes; generated clients and servers are configured with it.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Most calls and streams on one connection; further ones wait.
const MAX_STREAMS: u32 = 1024;
/// Most unread bytes of one body.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Most unread bytes on one connection: room for all of its streams, so that slow readers never hold up the others.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Largest HTTP/2 frame, in bytes: each costs system calls at both ends, which adds up for files.
const FRAME: u32 = 256 * 1024;

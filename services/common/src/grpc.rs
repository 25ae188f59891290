//! gRPC between Confab programs: one client type whether the service is in this process or on many replicas elsewhere.

mod replicas;
mod server;
mod transport;

pub use replicas::connect;
pub use server::serve;
pub use transport::{Binder, Call, Transport, in_process, late, request};

/// Largest message that any party sends or takes, in bytes; generated clients and servers are set to it.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;

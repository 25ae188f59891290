//! An Engine.IO 4 / Socket.IO 5 server for Tokio and axum: both transports, upgrade, acknowledgements, binary
//! attachments, bounded memory, draining, and sessions that any node of a cluster serves. An application implements the
//! trait [`Application`]; the server contains no other application code.
//!
//! [`Server`] holds the application and its sessions. [`routes`] returns the axum routes for clients, and
//! [`cluster_routes`] those for the other nodes of a cluster. `examples/echo.rs` is a complete program of 40 lines.
//!
//! Protocols: <https://github.com/socketio/engine.io-protocol>, <https://github.com/socketio/socket.io-protocol>

#![warn(missing_docs)]

mod application;
pub mod budget;
pub mod cluster;
mod config;
mod ending;
mod engine;
mod event;
mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod heartbeat;
mod last_poll;
mod metrics;
pub mod net;
pub mod outbox;
pub mod packet;
mod passage;
mod protocol;
mod rate_limit;
mod refusal;
mod registry;
mod server;
mod session;
#[cfg(test)]
mod testing;
mod transport;

use std::sync::Arc;

use axum::Router;

pub use application::Application;
pub use config::Config;
pub use ending::Ending;
pub use event::Event;
pub use frame::Frame;
pub use metrics::METRICS;
pub use packet::Malformed;
pub use rate_limit::RateLimit;
pub use registry::Registry;
pub use server::Server;
pub use session::Session;
pub use transport::Transport;

/// Returns the routes of `/socket.io/` for clients: handshake, polling and WebSocket.
/// <https://github.com/socketio/engine.io-protocol>
pub fn routes<A: Application>(server: &Arc<Server<A>>) -> Router {
    engine::handshake::routes(server)
}

/// Returns the routes of `/socket.io/` for the other nodes of the cluster. Serve them at a separate address, which
/// [`ClusterConfig::own`](cluster::ClusterConfig::own) names. A request without the cluster's signature receives 403.
pub fn cluster_routes<A: Application>(server: &Arc<Server<A>>) -> Router {
    engine::peers::routes(server)
}

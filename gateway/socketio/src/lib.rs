//! The parts of an Engine.IO 4 / Socket.IO 5 server that know no application: packets are parsed, frames encoded, WebSockets
//! decoded, and rates limited here.
//!
//! Protocols: <https://github.com/socketio/engine.io-protocol>, <https://github.com/socketio/socket.io-protocol>

pub mod decoder;
mod frame;
pub mod packet;
mod rate_limit;

pub use frame::Frame;
pub use rate_limit::RateLimit;

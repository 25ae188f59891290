//! Chat over Socket.IO: the application of the server. Handlers receive the context and the socket as separate
//! arguments; a socket's client contains no context.

mod answer;
mod app;
pub mod client;
mod connect;
mod context;
mod credential;
mod file_upload;
mod handle;
mod join;
mod lanes;
mod markers;
mod pause;
mod reactions;
pub mod recovery;
mod renew;
mod request;
mod restore;
mod sign_ins;
#[cfg(test)]
pub(crate) mod testing;
mod typists;
mod work;

pub use context::{Chat, Parts};

//! The rooms in which this gateway has clients: who receives which events, and the log from which these come. Knows no
//! session and no socket: a client is a [`Listener`](hub::Listener).

pub mod event;
pub mod follower;
pub mod history;
pub mod hub;
mod lag;
mod log;
mod partition;

//! The rooms in which this gateway has clients: which client receives which events, and the log that the events come
//! from. This module imports neither sessions nor sockets: a client is a [`Listener`](hub::Listener).

pub mod effect;
pub mod event;
pub mod follower;
pub mod history;
pub mod hub;
mod lag;
mod log;
pub mod partition;
pub mod replay;

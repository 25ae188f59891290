//! The load generator: how fast and how small a running server is, as its clients and `/proc` see it.
//!
//! It shares the machine with what it measures, so it is frugal: a few threads, each with an epoll of its own sockets, frames
//! parsed in place, and of each message only the few bytes that are needed.

pub mod attack;
pub mod conversation;
pub mod crowd;
pub mod fanout;
pub mod figures;
pub mod files;
pub mod hintless;
pub mod histogram;
pub mod idle;
pub mod options;
pub mod process;
pub mod send;
pub mod stalled;
pub mod start;
pub mod storm;
pub mod talk;
pub mod wire;
pub mod worker;

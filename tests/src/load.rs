//! The load generator: measures the speed and the resource use of a running server, through its clients and `/proc`.
//!
//! It runs on the same machine as the measured server, so it is frugal: a few threads, each with one epoll for its
//! sockets, frames parsed in place, and only the necessary bytes of each message.

pub mod access;
pub mod acts;
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

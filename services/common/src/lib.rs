//! The base of every Confab process. It contains no chat concepts: start-up and shutdown, settings, errors, gRPC
//! transports, databases, the bus.

pub mod admin;
pub mod backoff;
pub mod bus;
pub mod clock;
pub mod cluster_key;
pub mod config;
pub mod cursor;
pub mod descriptors;
pub mod error;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod grpc;
mod handshake;
mod healthcheck;
pub mod identity;
pub mod issuers;
pub mod limit;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod operations;
pub mod outbox;
pub mod pace;
pub mod pg;
pub mod private;
pub mod process;
pub mod program;
pub mod readiness;
pub mod seldom;
pub mod sqlite;
pub mod standstill;
pub mod store;
pub mod tables;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
pub mod transfer;
pub mod trust;

pub use config::Secret;
pub use error::{Code, Error, FieldError, Result};

/// Hits the failpoint of this name: aborts the process, or evaluates to whether the code must fail. Evaluates to
/// `false` in builds without the feature `failpoints`; these do not contain the name either.
#[macro_export]
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::hit($name)
    };
}

/// Hits the failpoint of this name: aborts the process, or evaluates to whether the code must fail. Evaluates to
/// `false` in builds without the feature `failpoints`; these do not contain the name either.
#[macro_export]
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {
        false
    };
}

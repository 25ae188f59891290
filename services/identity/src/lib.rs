//! On whose behalf a call is made. The gateways and the services verify tokens and server keys with this crate, each for
//! itself, so that a service need not trust the program that calls it.

pub mod acting;
mod background;
pub mod callers;
mod calls;
pub mod claim;
mod config;
pub mod credential;
pub mod deleted;
mod guard;
mod lookups;
mod metrics;
pub mod revocations;
pub mod server_keys;
pub mod sign_in;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokens;

pub use callers::{Callers, count_unknown};
pub use claim::{Claim, verified};
pub use config::CallersConfig;
pub use guard::Guarded;

//! End-to-end tests: the built programs, spoken to by stock clients. `make test` builds what they start.

mod cluster;
#[cfg(test)]
mod contract;
mod conversation;
#[cfg(test)] // Says to the linter that all of it is tests, what they share included.
mod files;
#[cfg(test)]
mod following;
#[cfg(test)] // Likewise.
mod healthcheck;
mod history;
mod leaving;
mod metrics;
mod realtime;
mod recovery;
mod rest;
mod rolling;
mod stickiness;
#[cfg(test)] // Likewise.
mod stores;
#[cfg(test)] // Likewise.
mod tracing;
mod world;

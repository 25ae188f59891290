//! End-to-end tests: the built programs and stock clients. `make test` builds the programs.
#![allow(clippy::unwrap_used, reason = "all of it is tests, what they share included")]

mod access;
mod backup;
mod changes;
mod cluster;
mod connections;
mod contract;
mod conversation;
mod events;
mod files;
mod following;
mod grpc;
mod healthcheck;
mod history;
mod hosts;
mod ipv6;
mod kill;
mod leaving;
mod metrics;
mod moving;
mod private;
mod quotas;
mod realtime;
mod recovery;
mod rest;
mod roles;
mod rolling;
mod search;
mod searching;
mod security;
mod shared_bucket;
mod standby;
mod standstill;
mod starting;
mod stickiness;
mod tls;
#[cfg(test)] // Likewise.
mod tracing;
mod typing;
mod unread;
mod upgrade;
mod world;

//! End-to-end tests: the built programs, spoken to by stock clients. `make test` builds what they start.

mod cluster;
mod conversation;
mod history;
mod realtime;
mod rest;
mod world;

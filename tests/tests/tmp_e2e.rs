//! Temporary.
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/conversation.rs"]
mod conversation;
#[path = "e2e/history.rs"]
mod history;
#[path = "e2e/rest.rs"]
mod rest;
#[path = "e2e/world.rs"]
mod world;

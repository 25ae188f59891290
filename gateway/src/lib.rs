//! The edge: REST and Socket.IO for clients, gRPC to the services.

pub mod clients;
pub mod json;

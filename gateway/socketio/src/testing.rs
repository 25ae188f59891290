//! A server with an empty application, and clients of it without a network.

use std::sync::Arc;

use axum::http::HeaderMap;
pub use confab_common::testing::eventually;
use uuid::Uuid;

use crate::application::Application;
use crate::budget::Budget;
use crate::config::Config;
use crate::event::Event;
use crate::net::ClientAddress;
use crate::packet::Malformed;
use crate::registry::Registry;
use crate::server::Server;
use crate::session::Session;
use crate::transport::Transport;

/// Accepts all clients and ignores all events.
pub struct Silent;

impl Application for Silent {
    type Client = ();

    fn open(&self, _: &HeaderMap, _: ClientAddress) -> ((), usize) {
        ((), 0)
    }

    fn connect(self: &Arc<Self>, session: &Arc<Session<()>>, _: &str) {
        session.accept(None);
    }

    fn event(self: &Arc<Self>, _: &Arc<Session<()>>, _: Event<'_>) -> Result<(), Malformed> {
        Ok(())
    }
}

/// A server with a memory limit of `limit` bytes for all clients together.
pub fn server(config: Config, limit: usize) -> Arc<Server<Silent>> {
    Server::new(Arc::new(Silent), config, Arc::new(Registry::new(Arc::new(Budget::new(limit, Arc::default())))))
}

/// The address 192.0.2.`last`.
pub fn address(last: u8) -> ClientAddress {
    std::net::IpAddr::from([192, 0, 2, last]).into()
}

/// A polling session of an unidentified client at this address.
pub fn open(server: &Arc<Server<Silent>>, last: u8) -> Arc<Session<()>> {
    server.open(Transport::POLLING, address(last), &HeaderMap::new()).unwrap()
}

/// A polling session of an identified client of this owner, with an empty outbox.
pub fn known(server: &Arc<Server<Silent>>, owner: u128) -> Arc<Session<()>> {
    let session = open(server, 1);
    server.registry.identify(&session, Uuid::from_u128(owner));
    session.outbox.take_some(9, usize::MAX);
    session
}

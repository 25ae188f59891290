//! Permits for connections, and the number of permits that one address may hold.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::metrics::LIMITS;
use confab_common::tables;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::address::ClientAddress;

/// An address may hold this many times the number of free permits. One address alone can therefore take four fifths of
/// all permits, a second address four fifths of the rest, and permits remain for further addresses.
pub const TIMES_FREE: usize = 4;

/// The permit of one connection, of a bounded number. An HTTP server puts it into the extensions of each request. The
/// engine keeps it until an upgraded connection ends.
#[derive(Clone)]
pub struct ConnectionPermit {
    connection: Arc<Connection>,
    /// The share of the client's address for a request that came through a trusted proxy, until the response is sent.
    share: Option<Arc<Share>>,
}

struct Connection {
    permit: OwnedSemaphorePermit,
    /// The share of the connection's address.
    share: Option<Share>,
}

impl ConnectionPermit {
    /// Creates the permit of a new connection. `share` is `None` for the connection of a trusted proxy, which carries
    /// requests of many clients.
    pub fn new(permit: OwnedSemaphorePermit, share: Option<Share>) -> Self {
        Self { connection: Arc::new(Connection { permit, share }), share: None }
    }

    /// Returns the permit for one request, with the share of the client's address.
    pub fn for_request(&self, share: Option<Arc<Share>>) -> Self {
        Self { share, ..self.clone() }
    }

    /// Whether the request holds a share of its client's address in addition to the proxy's connection.
    pub fn has_share_of_request(&self) -> bool {
        self.share.is_some()
    }

    /// Acquires a second permit, for the connection to another node that this request needs; `None` when no permit is
    /// free.
    pub fn another(&self) -> Option<OwnedSemaphorePermit> {
        let another = self.connection.permit.semaphore().clone().try_acquire_owned().ok();
        if another.is_none() {
            LIMITS.hit("connections");
        }
        another
    }

    /// The semaphore of all connections.
    pub fn semaphore(&self) -> &Arc<tokio::sync::Semaphore> {
        self.connection.permit.semaphore()
    }

    /// Whether the connection belongs to a trusted proxy or to another node.
    pub fn is_of_proxy(&self) -> bool {
        self.connection.share.is_none()
    }
}

/// The number of permits that each address holds.
pub struct Shares {
    places: usize,
    // Held for a look-up or a change, never across an await.
    counts: Mutex<PermitCounts>,
}

#[derive(Default)]
struct PermitCounts {
    all: usize,
    by_address: HashMap<ClientAddress, usize>,
}

impl Shares {
    /// Creates the shares of this many permits.
    pub fn of(places: usize) -> Arc<Self> {
        Arc::new(Self { places, counts: Mutex::default() })
    }

    /// Takes one more permit for an address; `None` when the address already holds [`TIMES_FREE`] times the free
    /// permits.
    pub fn take(self: &Arc<Self>, address: ClientAddress) -> Option<Share> {
        let mut counts = self.counts.lock();
        let free = self.places.saturating_sub(counts.all);
        if counts.by_address.get(&address).is_some_and(|count| *count >= TIMES_FREE * free) {
            return None;
        }
        counts.all += 1;
        *counts.by_address.entry(address).or_default() += 1;
        drop(counts);
        Some(Share { shares: self.clone(), address })
    }
}

/// A permit that an address holds, until it is dropped.
pub struct Share {
    shares: Arc<Shares>,
    address: ClientAddress,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts.lock();
        counts.all -= 1;
        let by_address = &mut counts.by_address;
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
        tables::shrink(by_address);
    }
}

#[cfg(test)]
mod tests;

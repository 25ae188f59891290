//! The permits of connections: how many there are, and how many of them one address may hold.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::metrics::LIMITS;
use confab_common::tables;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::address::ClientAddress;

/// An address may hold this many times as many permits as are free. So one that takes all it can holds four fifths and
/// leaves a fifth, a second one takes four fifths of the rest, and other addresses always get in.
pub const TIMES_FREE: usize = 4;

/// A connection's permit among the bounded number of connections. An HTTP server puts it into each request's extensions; the
/// engine keeps it for as long as an upgraded connection lives.
#[derive(Clone)]
pub struct ConnectionPermit {
    connection: Arc<Connection>,
    /// For a request that came through a trusted proxy: its client's share, held until the response is sent.
    share: Option<Arc<Share>>,
}

struct Connection {
    permit: OwnedSemaphorePermit,
    /// The share of the connection's address.
    share: Option<Share>,
}

impl ConnectionPermit {
    /// The permit of a new connection; without a share for one of a trusted proxy, whose requests are of many clients.
    pub fn new(permit: OwnedSemaphorePermit, share: Option<Share>) -> Self {
        Self { connection: Arc::new(Connection { permit, share }), share: None }
    }

    /// The part of it that a request of this client's address holds.
    pub fn for_request(&self, share: Option<Arc<Share>>) -> Self {
        Self { share, ..self.clone() }
    }

    /// Whether the request holds a share of its client's address, beside the proxy's connection.
    pub fn has_share_of_request(&self) -> bool {
        self.share.is_some()
    }

    /// A second permit, for the connection to another node that this client's request needs; `None` when all are taken.
    pub fn another(&self) -> Option<OwnedSemaphorePermit> {
        let another = self.connection.permit.semaphore().clone().try_acquire_owned().ok();
        if another.is_none() {
            LIMITS.hit("connections");
        }
        another
    }

    /// The semaphore that all connections take their permits from.
    pub fn semaphore(&self) -> &Arc<tokio::sync::Semaphore> {
        self.connection.permit.semaphore()
    }

    /// Whether the connection is a trusted proxy's, or another node's.
    pub fn is_of_proxy(&self) -> bool {
        self.connection.share.is_none()
    }
}

/// How many permits each address holds.
pub struct Shares {
    places: usize,
    // Held for a look-up or a change, never across an await.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    by_address: HashMap<ClientAddress, usize>,
}

impl Shares {
    /// Shares of this many permits.
    pub fn of(places: usize) -> Arc<Self> {
        Arc::new(Self { places, held: Mutex::default() })
    }

    /// Takes one more permit for an address; `None` when it has used up its share.
    pub fn take(self: &Arc<Self>, address: ClientAddress) -> Option<Share> {
        let mut held = self.held.lock();
        let free = self.places.saturating_sub(held.all);
        if held.by_address.get(&address).is_some_and(|count| *count >= TIMES_FREE * free) {
            return None;
        }
        held.all += 1;
        *held.by_address.entry(address).or_default() += 1;
        drop(held);
        Some(Share { shares: self.clone(), address })
    }
}

/// A permit that an address holds.
pub struct Share {
    shares: Arc<Shares>,
    address: ClientAddress,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        held.all -= 1;
        let by_address = &mut held.by_address;
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
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(last: u8) -> ClientAddress {
        ClientAddress::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn take_all(shares: &Arc<Shares>, last: u8) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(address(last))).collect()
    }

    #[test]
    fn an_address_leaves_a_fifth_and_what_it_gives_back_it_may_take_again() {
        let shares = Shares::of(200);
        let mut first = take_all(&shares, 1);
        assert_eq!(first.len(), 160);
        first.pop();
        first.extend(take_all(&shares, 1));
        assert_eq!(first.len(), 160);
        let second = take_all(&shares, 2);
        assert_eq!(second.len(), 32);
        assert!((3..8).all(|last| shares.take(address(last)).is_some()), "others still get in");
    }

    #[test]
    fn a_single_place_may_be_taken() {
        assert_eq!(take_all(&Shares::of(1), 1).len(), 1);
    }

    #[test]
    fn a_table_that_was_large_shrinks() {
        let shares = Shares::of(100_000);
        let address = |n: u32| ClientAddress::from(IpAddr::V4(Ipv4Addr::from(n)));
        let held = (0..50_000).map(|n| shares.take(address(n)).unwrap()).collect::<Vec<_>>();
        drop(held);
        assert!(shares.held.lock().by_address.is_empty() && shares.held.lock().by_address.capacity() < 10_000);
    }
}

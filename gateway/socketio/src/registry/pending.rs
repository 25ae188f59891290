//! Sessions without an identified client, by the address of the client.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use confab_common::tables::shrink;

use crate::net::ClientAddress;

/// Pending sessions by their number. Numbers rise with time, so the lowest number is the oldest session.
pub(super) struct Pending<S> {
    addresses: HashMap<ClientAddress, Waiting<S>>,
    address_of: HashMap<u64, ClientAddress>,
    /// Addresses by their number of sessions; among equals, the address with the oldest session comes last.
    order: BTreeMap<Rank, ClientAddress>,
}

type Rank = (usize, Reverse<u64>);

/// The sessions of one address.
type Waiting<S> = BTreeMap<u64, Arc<S>>;

impl<S> Default for Pending<S> {
    fn default() -> Self {
        Self { addresses: HashMap::new(), address_of: HashMap::new(), order: BTreeMap::new() }
    }
}

fn rank<S>(waiting: &Waiting<S>) -> Option<Rank> {
    waiting.keys().next().map(|oldest| (waiting.len(), Reverse(*oldest)))
}

impl<S> Pending<S> {
    pub fn len(&self) -> usize {
        self.address_of.len()
    }

    pub fn insert(&mut self, id: u64, address: ClientAddress, session: Arc<S>) {
        let waiting = self.addresses.entry(address).or_default();
        if let Some(rank) = rank(waiting) {
            self.order.remove(&rank);
        }
        waiting.insert(id, session);
        if let Some(rank) = rank(waiting) {
            self.order.insert(rank, address);
        }
        self.address_of.insert(id, address);
    }

    /// Removes a session. Idempotent.
    pub fn remove(&mut self, id: u64) {
        let Some(address) = self.address_of.remove(&id) else { return };
        let Some(waiting) = self.addresses.get_mut(&address) else { return };
        if let Some(rank) = rank(waiting) {
            self.order.remove(&rank);
        }
        waiting.remove(&id);
        match rank(waiting) {
            Some(rank) => _ = self.order.insert(rank, address),
            None => _ = self.addresses.remove(&address),
        }
        shrink(&mut self.address_of);
        shrink(&mut self.addresses);
    }

    /// The oldest session of the address with the most sessions.
    pub fn oldest_of_most(&self) -> Option<Arc<S>> {
        let (_, address) = self.order.last_key_value()?;
        self.addresses.get(address)?.values().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(last: u8) -> ClientAddress {
        IpAddr::from([192, 0, 2, last]).into()
    }

    #[test]
    fn the_oldest_session_of_the_largest_address_is_first() {
        let mut pending = Pending::default();
        for (id, last) in [1, 2, 2, 3, 3, 2].into_iter().enumerate() {
            pending.insert(id as u64, address(last), Arc::new(id));
        }
        let mut gone = Vec::new();
        while let Some(oldest) = pending.oldest_of_most() {
            pending.remove(*oldest as u64);
            gone.push(*oldest);
        }
        assert_eq!(gone, [1, 2, 3, 0, 4, 5], "among equally large addresses, the one with the oldest session");
        assert_eq!((pending.len(), pending.addresses.len(), pending.order.len()), (0, 0, 0));
        pending.remove(1);
    }

    #[test]
    fn tables_shrink_after_a_burst() {
        let mut pending = Pending::default();
        for id in 0..50_000 {
            pending.insert(id, IpAddr::from(u32::try_from(id).unwrap().to_be_bytes()).into(), Arc::new(()));
        }
        (0..50_000).for_each(|id| pending.remove(id));
        assert!(pending.address_of.capacity() < 5000 && pending.addresses.capacity() < 5000);
    }
}

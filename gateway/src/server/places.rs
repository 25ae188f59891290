//! Places for connections: how many exist, and how many of them one address may take.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::descriptors::{for_connections, limit};
use confab_common::memory;
use parking_lot::Mutex;

use crate::address::ClientAddress;
use crate::config::GatewayConfig;
use crate::tables;

/// Where gateways forward sessions, one descriptor out of this many is reserved for connections of other gateways.
const GATEWAYS_PART: u64 = 3;
/// Memory for a connection without counted bytes is 14 KiB at most; others need some as well, and the process itself.
const BYTES_PER_PLACE: u64 = 24 * 1024;
/// Fewer places than this indicate a mistake.
const FEW: usize = 100;
/// An address may hold this many times as many places as are free. So one that takes all it can holds four fifths and
/// leaves a fifth, a second one takes four fifths of the rest, and other addresses always get in.
const TIMES_FREE: usize = 4;

/// How many connections a gateway accepts from other gateways at once.
pub fn for_gateways(config: &GatewayConfig) -> usize {
    within(limit(), memory::limit() / GATEWAYS_PART, config.max_connections, |descriptors| descriptors / GATEWAYS_PART)
}

/// How many connections a gateway accepts from clients at once. A tunnel to another gateway takes two places.
pub fn for_clients(config: &GatewayConfig) -> usize {
    let (limit, memory) = (limit(), memory::limit());
    let is_forwarding = config.forward.forward_listen.is_some();
    let left = |of| if is_forwarding { of - of / GATEWAYS_PART } else { of };
    let places = within(limit, left(memory), config.max_connections, left);
    let setting = config.max_connections;
    if places == setting {
        return places;
    }
    let what = if places as u64 == left(for_connections(limit)) { "descriptor limit" } else { "memory" };
    if places < FEW.min(setting) {
        tracing::error!(
            places,
            limit,
            memory,
            "the {what} leaves hardly any connections; raise it (for descriptors: ulimit -n, LimitNOFILE)"
        );
    } else {
        tracing::info!(places, limit, memory, setting, "the {what}, not CONFAB_MAX_CONNECTIONS, bounds the connections");
    }
    places
}

fn within(descriptors: u64, memory: u64, setting: usize, part: impl Fn(u64) -> u64) -> usize {
    let places = part(for_connections(descriptors)).min(memory / BYTES_PER_PLACE);
    setting.min(usize::try_from(places).unwrap_or(usize::MAX)).max(1)
}

/// How many sockets one user may have: the setting (0: no limit), but never more than four fifths of the places.
pub fn sockets_per_user(setting: usize, places: usize) -> usize {
    if setting == 0 { 0 } else { setting.min((places.div_ceil(TIMES_FREE + 1) * TIMES_FREE).min(places)) }
}

/// How many places each address holds.
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
    /// Shares of this many places.
    pub fn of(places: usize) -> Arc<Self> {
        Arc::new(Self { places, held: Mutex::default() })
    }

    /// Takes one more place for an address; `None` when it has used up its share.
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

/// A place that an address holds.
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

    #[test]
    fn places_within_the_limits_of_the_system() {
        let all = |descriptors| descriptors;
        let (much, gibibyte) = (u64::MAX, 1 << 30);
        assert_eq!(within(1 << 20, much, 100_000, all), 100_000);
        assert_eq!(within(65_536, much, 100_000, all), 65_280);
        assert_eq!(within(65_536, much, 100_000, |descriptors| descriptors / GATEWAYS_PART), 21_760);
        assert_eq!(within(1024, much, 100_000, all), 768);
        assert_eq!(within(256, much, 100_000, all), 128);
        assert_eq!(within(0, much, 100, all), 1);
        assert_eq!(within(u64::MAX, much, 7, all), 7);
        assert_eq!(within(1 << 20, gibibyte, 100_000, all), 43_690);
        assert_eq!(within(20_000, gibibyte, 100_000, all), 19_744);
    }

    #[test]
    fn one_user_has_four_fifths_at_most() {
        assert_eq!(sockets_per_user(10_000, 100_000), 10_000);
        assert_eq!(sockets_per_user(10_000, 200), 160);
        assert_eq!(sockets_per_user(10_000, 1), 1);
        assert_eq!(sockets_per_user(0, 200), 0);
    }

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

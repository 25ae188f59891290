//! The number of connections ("places") that the gateway admits, and the number of sockets of one user.

use confab_common::descriptors::{for_connections, limit};
use confab_common::memory;
use confab_socketio::net::TIMES_FREE;

use crate::config::GatewayConfig;

/// In a cluster, one of this many file descriptors is reserved for connections of other gateways.
const GATEWAYS_PART: u64 = 3;
/// Memory for each connection. One without counted bytes needs at most 14 KiB; the rest is for counted bytes and the
/// process.
const BYTES_PER_PLACE: u64 = 24 * 1024;
/// A limit below this number of connections is logged as an error.
const MIN_PLAUSIBLE: usize = 100;

/// The number of connections that a gateway admits from other gateways.
pub fn for_gateways(config: &GatewayConfig) -> usize {
    within(limit(), memory::limit() / GATEWAYS_PART, config.max_connections, |descriptors| descriptors / GATEWAYS_PART)
}

/// The number of connections that a gateway admits from clients. A tunnel to another gateway takes two of them.
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
    if places < MIN_PLAUSIBLE.min(setting) {
        tracing::error!(
            places,
            limit,
            memory,
            "the {what} leaves too few connections; raise it (for descriptors: ulimit -n, LimitNOFILE)"
        );
    } else {
        tracing::info!(
            places,
            limit,
            memory,
            setting,
            "the {what}, not CONFAB_MAX_CONNECTIONS, limits the number of connections"
        );
    }
    places
}

fn within(descriptors: u64, memory: u64, setting: usize, part: impl Fn(u64) -> u64) -> usize {
    let places = part(for_connections(descriptors)).min(memory / BYTES_PER_PLACE);
    setting.min(usize::try_from(places).unwrap_or(usize::MAX)).max(1)
}

/// The number of sockets that one user or one address may have: the setting (0: no limit), but at most four fifths of
/// the connections.
pub fn max_sockets(setting: usize, places: usize) -> usize {
    if setting == 0 { 0 } else { setting.min((places.div_ceil(TIMES_FREE + 1) * TIMES_FREE).min(places)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_descriptors_and_memory() {
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
    fn one_user_or_address_can_have_four_fifths_of_the_connections() {
        assert_eq!(max_sockets(10_000, 100_000), 10_000);
        assert_eq!(max_sockets(10_000, 200), 160);
        assert_eq!(max_sockets(10_000, 1), 1);
        assert_eq!(max_sockets(0, 200), 0);
    }
}

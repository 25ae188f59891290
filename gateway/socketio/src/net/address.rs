//! The client address to which the limits per address apply.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

/// Each proxy appends the address of its peer, so the right-most entries come from the trusted proxies.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The first 64 bits of an IPv6 address identify a subscriber's network (RFC 6177); the subscriber chooses the other
/// bits.
const SUBSCRIBER: u32 = 64;

/// The address of a client, to which the limits per address apply: an IPv4 address, or the /64 network of an IPv6
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The address of requests without one in their extensions, as in tests.
    const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The address of a request's client: the peer of the connection or, behind trusted proxies, the right-most hop in
    /// `X-Forwarded-For` that is not a trusted proxy.
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let mut client = peer.to_canonical();
        if is_trusted(&client) {
            let lines = headers.get_all(FORWARDED_FOR).iter().rev();
            let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',').map(str::trim));
            for hop in hops {
                // Trusted proxies write no malformed hops, so the hops to the left of this one cannot be trusted.
                let Some(hop) = address(hop) else { break };
                client = hop;
                if !is_trusted(&client) {
                    break;
                }
            }
        }
        Self::from(client)
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !(u128::MAX >> SUBSCRIBER);
                Self(Ipv6Addr::from(network).into())
            }
            address => Self(address),
        }
    }
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::UNKNOWN))
    }
}

/// Parses an address in the forms that proxies write. Some append a port and enclose an IPv6 address in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse().ok().map(|address: std::net::SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// Parses a network (`10.0.0.0/8`) or an address (`10.1.2.3`) from a setting; an empty text is `None`.
///
/// # Errors
/// A description of the expected form, when the text is neither a network nor an address.
pub fn network(text: &str) -> Result<Option<IpNet>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let network = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| IpNet::from(address)));
    network.map(|network| Some(canonical(network))).ok_or_else(|| "must look like 10.0.0.0/8 or 10.1.2.3".into())
}

/// Converts a network of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) to an IPv4 network, because the
/// addresses of peers are converted, too.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::from)
}

#[cfg(test)]
mod tests;

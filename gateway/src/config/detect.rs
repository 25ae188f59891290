//! Detects the address at which other gateways reach this one, for containers and other environments that do not
//! configure it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// How long detection is retried: DNS may list a new container a moment after its start.
const DETECTS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Resolves the `host:port`s to the address that belongs to this machine and has that port.
///
/// # Errors
/// When no such address is found within [`DETECTS_WITHIN`].
pub async fn find(targets: &[String], port: u16) -> anyhow::Result<SocketAddr> {
    let until = Instant::now() + DETECTS_WITHIN;
    loop {
        let mut addresses = Vec::new();
        for target in targets {
            addresses.extend(tokio::net::lookup_host(target).await.into_iter().flatten());
        }
        let own = addresses.into_iter().filter(|address| address.port() == port && is_ours(address.ip())).min();
        if own.is_some() || Instant::now() >= until {
            return own.context(
                "CONFAB_FORWARD_ADDRESS: set the address by which other gateways reach this one; \
                 it is not among those of CONFAB_GATEWAY_URL",
            );
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether an interface of this machine has the address: only then can a socket be bound to it.
fn is_ours(ip: IpAddr) -> bool {
    !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_address_of_this_machine_is_found() {
        // The first range is reserved for documentation (RFC 5737); the second is another gateway's on this machine.
        let targets = ["192.0.2.1:7250", "127.0.0.1:7251", "localhost:7250"].map(String::from);
        assert_eq!(find(&targets, 7250).await.unwrap(), "127.0.0.1:7250".parse().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_an_error_that_says_what_to_do() {
        let error = find(&["192.0.2.1:7250".into(), "127.0.0.1:7251".into()], 7250).await.unwrap_err();
        assert!(error.to_string().starts_with("CONFAB_FORWARD_ADDRESS: set the address"), "{error}");
    }
}

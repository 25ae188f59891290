//! By which address other gateways reach this one, when nobody says so: containers and their like are told it by nobody.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// How long it is looked for: the name of a container that starts may come a moment after it.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Of the addresses that the `host:port`s resolve to the one that is this machine's and has that port.
///
/// # Errors
/// When there is none after a while.
pub async fn find(targets: &[String], port: u16) -> anyhow::Result<SocketAddr> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut addresses = Vec::new();
        for target in targets {
            addresses.extend(tokio::net::lookup_host(target).await.into_iter().flatten());
        }
        let own = addresses.into_iter().filter(|address| address.port() == port && is_ours(address.ip())).min();
        if own.is_some() || Instant::now() >= until {
            return own.context(
                "CONFAB_FORWARD_ADDRESS: say by which address other gateways reach this one; \
                 it is not among those of CONFAB_GATEWAY_URL",
            );
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether one of this machine's interfaces has it: nobody can be bound to any other.
fn is_ours(ip: IpAddr) -> bool {
    !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_the_one_that_is_ours() {
        // The first is in a range that is for documentation (RFC 5737), the second another gateway's on this machine.
        let targets = ["192.0.2.1:7250", "127.0.0.1:7251", "localhost:7250"].map(String::from);
        assert_eq!(find(&targets, 7250).await.unwrap(), "127.0.0.1:7250".parse().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_an_error_that_says_what_to_do() {
        let error = find(&["192.0.2.1:7250".into(), "127.0.0.1:7251".into()], 7250).await.unwrap_err();
        assert!(error.to_string().starts_with("CONFAB_FORWARD_ADDRESS: say by which"), "{error}");
    }
}

//! The addresses of replicas, and the names that resolve to them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use super::Plan;

/// The entries of a name server.
pub type Names = BTreeMap<String, Name>;

/// An entry of a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The containers behind it.
    pub containers: Vec<String>,
    /// The ports of the name, with the container's port behind each. `None`: it resolves to addresses, for any port.
    pub ports: Option<BTreeMap<u16, u16>>,
}

/// A part of 127.0.0.0/8 for one run: 127.run.container.replica.
pub(super) struct Network {
    run: u8,
    containers: Vec<String>,
}

impl Network {
    pub(super) fn new(containers: impl Iterator<Item = String>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let run = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        // Low addresses are left for manual use.
        Self { run: (64 + run % 190) as u8, containers: containers.collect() }
    }

    pub(super) fn address(&self, container: &str, replica: usize) -> anyhow::Result<String> {
        let n = self
            .containers
            .iter()
            .position(|known| known == container)
            .with_context(|| format!("there is no {container}"))?;
        Ok(Ipv4Addr::new(127, self.run, u8::try_from(n + 1)?, u8::try_from(replica)?).to_string())
    }

    pub(super) fn addresses(&self, plan: &Plan, name: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let name = plan.names.get(name)?;
        let port = name.ports.as_ref().map_or(Some(port), |ports| ports.get(&port).copied())?;
        let containers = name.containers.iter().filter_map(|name| plan.container(name).ok());
        let replicas =
            containers.flat_map(|container| (1..=container.replicas).map(|n| self.address(&container.name, n)));
        let addresses = replicas.map(|address| Some(SocketAddr::new(address.ok()?.parse().ok()?, port)));
        addresses.collect::<Option<Vec<_>>>().filter(|addresses| !addresses.is_empty())
    }

    /// Replaces names in the URLs of a text by addresses. A name with several addresses becomes a list.
    pub(super) fn located(&self, plan: &Plan, text: &str) -> String {
        if !text.contains("://") {
            return text.to_owned();
        }
        text.split(',').map(|url| self.url(plan, url).unwrap_or_else(|| url.to_owned())).collect::<Vec<_>>().join(",")
    }

    fn url(&self, plan: &Plan, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (host, known_port(scheme)?),
        };
        let addresses = self.addresses(plan, host, port)?;
        Some(addresses.iter().map(|address| format!("{scheme}://{user}{address}{path}")).collect::<Vec<_>>().join(","))
    }
}

fn known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "postgres" => Some(5432),
        "redis" => Some(6379),
        "http" => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Container;
    use super::*;

    #[test]
    fn names_are_replaced_by_addresses() {
        let container = |name: &str, replicas| Container { name: name.into(), replicas, ..Container::default() };
        let name = |container: &str, ports| Name { containers: vec![container.into()], ports };
        let plan = Plan {
            containers: vec![container("gateway", 2), container("db", 1)],
            names: [
                ("gateway".into(), name("gateway", Some(BTreeMap::from([(80, 8080)])))),
                ("peers".into(), name("gateway", None)),
                ("db".into(), name("db", None)),
            ]
            .into(),
            door: ("gateway".into(), 80),
        };
        let network = Network { run: 99, containers: vec!["gateway".into(), "db".into()] };
        let located = |text| network.located(&plan, text);
        assert_eq!(located("http://gateway"), "http://127.99.1.1:8080,http://127.99.1.2:8080");
        assert_eq!(located("http://peers:7250/x"), "http://127.99.1.1:7250/x,http://127.99.1.2:7250/x");
        assert_eq!(located("postgres://a:b@db/confab?x=y"), "postgres://a:b@127.99.2.1:5432/confab?x=y");
        // URLs with unknown names are unchanged.
        for text in ["http://gateway:81", "http://unknown:80", "s3://db", "db:80"] {
            assert_eq!(located(text), text);
        }
    }
}

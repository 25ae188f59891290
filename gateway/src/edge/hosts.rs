//! The host names under which clients may call this server. Any site can make its own name resolve to this server's
//! address (DNS rebinding). Requests from its pages then differ from same-origin requests only in the Host header.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use confab_common::metrics::LIMITS;
use confab_common::seldom::Seldom;
use confab_common::{Code, Error};

use super::LIVEZ;
use crate::problem::Problem;

/// The allowed hosts; clones share them.
#[derive(Clone)]
pub struct Hosts(Arc<Inner>);

struct Inner {
    listed: Vec<Host>,
    any: bool,
    logged: Seldom,
}

/// A host with an optional port, in lower case and without the trailing dot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Parses `name`, `name:port`, `address` or `address:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let authority = text.trim().parse::<Authority>().ok().filter(|_| !text.contains('@'))?;
        let name = authority.host();
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
        // An empty port counts as no port.
        let port = port.filter(|port| !port.is_empty()).map(str::parse).transpose().ok()?;
        (!name.is_empty() && !name.contains('*')).then_some(Self { name, port })
    }

    /// The host without this port, which is written as `:80`.
    pub fn without_port(self, port: &str) -> Self {
        let is_it = self.port.is_some_and(|own| port.strip_prefix(':').is_some_and(|port| port.parse() == Ok(own)));
        if is_it { Self { port: None, ..self } } else { self }
    }

    /// Whether the host means this machine, independently of DNS.
    fn is_loopback(&self) -> bool {
        let v6 = self
            .name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .and_then(|name| name.parse::<Ipv6Addr>().ok());
        self.name == "localhost"
            || self.name.ends_with(".localhost")
            || self.name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || v6.is_some_and(|address| address.to_canonical().is_loopback())
    }

    /// Whether this host of the setting allows `other`. A host without a port allows the default ports of both schemes.
    fn allows(&self, other: &Self) -> bool {
        self.name == other.name
            && self.port.is_none_or(|port| other.port.map_or(matches!(port, 80 | 443), |other| other == port))
    }
}

/// The host of a request: the host in its target, if there is one (RFC 9112, section 3.2.2), otherwise its Host header.
pub fn of(uri: &Uri, headers: &HeaderMap) -> Option<Host> {
    match uri.authority() {
        Some(authority) => Host::parse(authority.as_str()),
        None => headers.get(HOST).and_then(|host| Host::parse(host.to_str().ok()?)),
    }
}

impl Hosts {
    /// The hosts of the setting. Without the setting: names of this machine while the gateway listens on loopback,
    /// otherwise any host.
    pub fn new(setting: &[Host], on_loopback: bool) -> Self {
        let listed = setting.iter().filter(|host| !host.name.is_empty()).cloned().collect::<Vec<_>>();
        let any = listed.is_empty() && !on_loopback;
        Self(Arc::new(Inner { listed, any, logged: Seldom::default() }))
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let mut named = request.headers().get_all(HOST).iter();
        let (first, second) = (named.next(), named.next());
        // HTTP/1.0 has no Host header. Health checks use it; browsers do not.
        if first.is_none() && second.is_none() && request.version() < Version::HTTP_11 {
            return Ok(());
        }
        if first.is_none() || second.is_some() {
            return Err(Error::new(Code::InvalidRequest, "a request must have exactly one Host header"));
        }
        let host = of(request.uri(), request.headers())
            .ok_or_else(|| Error::new(Code::InvalidRequest, "the Host is malformed"))?;
        if self.0.any
            || request.uri().path() == LIVEZ
            || host.is_loopback()
            || self.0.listed.iter().any(|listed| listed.allows(&host))
        {
            return Ok(());
        }
        LIMITS.hit("host");
        self.log(&host);
        Err(Error::new(Code::InvalidRequest, "this Host is not allowed; CONFAB_PUBLIC_HOSTS lists the allowed hosts"))
    }

    fn log(&self, host: &Host) {
        if self.0.logged.is_due() {
            tracing::warn!(host = host.name, "rejected a request for a host that is not in CONFAB_PUBLIC_HOSTS");
        }
    }
}

/// Rejects requests for hosts that are not allowed.
pub async fn only(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem(error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use confab_common::seldom::EVERY;
    use std::time::Duration;

    fn request(target: &str, hosts: &[&str]) -> Request {
        hosts
            .iter()
            .fold(Request::get(target), |request, host| request.header(HOST, *host))
            .body(Body::empty())
            .unwrap()
    }

    fn is_taken(hosts: &Hosts, host: &str) -> bool {
        hosts.check(&request("/", &[host])).is_ok()
    }

    fn listed(setting: &[&str]) -> Vec<Host> {
        setting.iter().map(|host| Host::parse(host).unwrap()).collect()
    }

    const FOREIGN: [&str; 14] = [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "evil-localhost",
        "localhost@evil.example",
        "evil@localhost",
        "127.0.0.1.evil.example",
        "128.0.0.1",
        "10.0.0.1:8080",
        "0.0.0.0",
        "[::]",
        "[::2]:8080",
        "",
        "localhost:port",
    ];

    #[test]
    fn on_loopback_only_names_of_this_machine_are_allowed() {
        let hosts = Hosts::new(&[], true);
        for own in [
            "localhost",
            "LocalHost:8080",
            "localhost.:1",
            "chat.localhost",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.99.1.2:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_taken(&hosts, own), "{own}");
        }
        for foreign in FOREIGN {
            assert!(!is_taken(&hosts, foreign), "{foreign}");
        }
    }

    #[test]
    fn elsewhere_any_host_is_allowed_until_hosts_are_listed() {
        assert!(is_taken(&Hosts::new(&[], false), "evil.example"));
        assert!(is_taken(&Hosts::new(&[Host::default()], false), "evil.example"));
        for on_loopback in [false, true] {
            let hosts = Hosts::new(
                &listed(&["Chat.example", "admin.example:8443", "tls.example:443", "[2001:db8::1]"]),
                on_loopback,
            );
            for own in [
                "chat.example",
                "CHAT.example.:1234",
                "admin.example:8443",
                "tls.example",
                "tls.example:443",
                "[2001:DB8::1]:80",
                // A health check on the same machine sends it.
                "127.0.0.1:8080",
            ] {
                assert!(is_taken(&hosts, own), "{own}");
            }
            for foreign in
                FOREIGN.into_iter().chain(["admin.example", "admin.example:1", "x.chat.example", "chat.example.evil"])
            {
                assert!(!is_taken(&hosts, foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn the_target_takes_precedence_over_the_header() {
        let hosts = Hosts::new(&[], true);
        assert!(hosts.check(&request("http://localhost:1/x", &["evil.example"])).is_ok());
        assert!(hosts.check(&request("http://evil.example/x", &["localhost"])).is_err());
        assert!(hosts.check(&request("http://localhost@evil.example/x", &["localhost"])).is_err());
    }

    #[test]
    fn health_checks_may_use_any_host() {
        assert!(Hosts::new(&[], true).check(&request("/livez", &["10.0.0.1:8080"])).is_ok());
        assert!(Hosts::new(&[], true).check(&request("/livez/x", &["10.0.0.1:8080"])).is_err());
    }

    #[test]
    fn requests_need_exactly_one_host() {
        for hosts in [Hosts::new(&[], true), Hosts::new(&[], false)] {
            assert!(hosts.check(&request("/", &["localhost", "localhost"])).is_err());
            assert!(hosts.check(&request("/", &[])).is_err());
            let mut old = request("/", &[]);
            *old.version_mut() = Version::HTTP_10;
            assert!(hosts.check(&old).is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rejections_are_logged_at_most_once_a_minute() {
        let hosts = Hosts::new(&[], true);
        let logged = || hosts.0.logged.last();
        assert!(!is_taken(&hosts, "evil.example"));
        let first = logged().unwrap();
        tokio::time::advance(EVERY - Duration::from_secs(1)).await;
        assert!(!is_taken(&hosts, "evil.example"));
        assert_eq!(logged(), Some(first));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!is_taken(&hosts, "evil.example"));
        assert_eq!(logged().unwrap() - first, EVERY);
    }
}

//! The gateway's settings.

mod detect;
pub mod limits;
mod own_address;
pub mod peers;

use std::net::SocketAddr;
use std::time::Duration;

use confab_common::config::{address, at_least_one, duration, some_time};
use confab_common::grpc;
use confab_common::issuers::IssuersConfig;
use confab_socketio::net::network;
use ipnet::IpNet;

use crate::edge::cors::canonical;
use crate::edge::hosts::Host;

pub use limits::LimitsConfig;
pub use own_address::OwnAddress;

/// Settings of the gateway.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayConfig {
    /// Whether anonymous callers may read public rooms, their messages and their files
    #[arg(long, env = "CONFAB_ANONYMOUS_READ", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub anonymous_read: bool,
    /// Which other users a user finds: all (`all`), or those who are members of a room of which the user is a member,
    /// too (`shared`) [default: `all`; `shared` if CONFAB_ISSUERS is set]
    #[arg(long, env = "CONFAB_USER_DIRECTORY", value_name = "all|shared")]
    pub user_directory: Option<UserDirectory>,
    /// Origins whose web pages may call the gateway, separated by commas; `*` allows all origins [default: localhost
    /// while the gateway listens on loopback, otherwise none]
    #[arg(long, env = "CONFAB_ALLOWED_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub allowed_origins: Option<Vec<String>>,
    /// How long a request may take before it fails with `timeout`. Does not apply to the bytes of files
    #[arg(long, env = "CONFAB_REQUEST_TIMEOUT", default_value = "2500ms", value_name = "DURATION", value_parser = duration)]
    pub request_timeout: Duration,
    /// Most simultaneous connections; further connections wait. The descriptor limit also bounds connections: 256
    /// descriptors (half of a limit below 512) are reserved for other uses. Where gateways forward sessions, a third of
    /// the rest is reserved for connections between gateways, and a tunnelled connection uses two descriptors. Memory
    /// bounds connections as well: one connection for every 24 KiB of the machine or the cgroup. One address may have
    /// four times as many connections as are free
    #[arg(long, env = "CONFAB_MAX_CONNECTIONS", default_value_t = 100_000, value_name = "COUNT", value_parser = at_least_one)]
    pub max_connections: usize,
    /// How long a connection may be idle between two requests. Must be longer than the idle timeout of a load balancer
    /// in front, which would otherwise reuse connections that the gateway is closing. While more than half of the
    /// connections are in use, the limit is at most 10 s, except for trusted proxies
    #[arg(long, env = "CONFAB_IDLE_TIMEOUT", default_value = "75s", value_name = "DURATION", value_parser = some_time)]
    pub idle_timeout: Duration,
    /// Proxies in front of the gateways, as addresses or networks separated by commas. Per-address limits then apply to
    /// the right-most address in X-Forwarded-For that is not a trusted proxy [default: none; limits apply to the peer
    /// of the connection]
    #[arg(long, env = "CONFAB_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<Option<IpNet>>,
    /// Host names under which clients may call the gateway, separated by commas, each with an optional port; names of
    /// this machine are always allowed. Prevents DNS rebinding, by which a page of any site can reach a server in its
    /// visitor's network [default: while the gateway listens on loopback, the names of this machine; otherwise any
    /// host]
    #[arg(long, env = "CONFAB_PUBLIC_HOSTS", value_name = "HOSTS", value_delimiter = ',', value_parser = host)]
    pub public_hosts: Vec<Host>,
    /// Whether a request continues the trace in its `traceparent` header, with that trace's sampling decision. Set it
    /// only behind a proxy that overwrites the header. Otherwise the request starts a trace that links to the client's
    #[arg(long, env = "CONFAB_TRUST_TRACEPARENT", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub trust_traceparent: bool,
    /// Limits of Socket.IO clients.
    #[command(flatten)]
    pub realtime: RealtimeConfig,
    /// Settings of the traffic between gateways.
    #[command(flatten)]
    pub forward: ForwardConfig,
    /// Rate limits of users and addresses.
    #[command(flatten)]
    pub limits: LimitsConfig,
    /// Issuers of tokens for the users of the app.
    #[command(flatten)]
    pub issuers: IssuersConfig,
}

/// Which other users a user finds
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UserDirectory {
    /// All users
    All,
    /// Users who are members of a common room
    Shared,
}

impl GatewayConfig {
    /// Which other users a user finds, also without the setting.
    pub fn directory(&self) -> UserDirectory {
        let default = || if self.issuers.is_set() { UserDirectory::Shared } else { UserDirectory::All };
        self.user_directory.unwrap_or_else(default)
    }
}

/// Settings of the traffic between gateways, by which any gateway accepts requests for a session of another gateway.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Between gateways")]
pub struct ForwardConfig {
    /// Where the gateways reach one another, including this one: http://host:port, several separated by commas; all
    /// addresses of a name are used. Any gateway then accepts requests for a session of another gateway, so the load
    /// balancer needs no session affinity
    #[arg(long, env = "CONFAB_GATEWAY_URL", value_name = "URL", value_parser = grpc::urls, requires = "forward_listen")]
    pub gateway_url: Option<String>,
    /// Address on which this gateway accepts connections from other gateways. Must not be reachable by clients
    #[arg(long, env = "CONFAB_FORWARD_LISTEN", value_name = "ADDRESS", value_parser = address, requires = "gateway_url")]
    pub forward_listen: Option<SocketAddr>,
    /// The address at which other gateways reach this one; the port may be left out if it is the same as in
    /// CONFAB_FORWARD_LISTEN [default: the address in CONFAB_FORWARD_LISTEN; if that is a wildcard, the address at
    /// CONFAB_GATEWAY_URL that belongs to this machine]
    #[arg(long, env = "CONFAB_FORWARD_ADDRESS", value_name = "ADDRESS", requires = "forward_listen")]
    pub forward_address: Option<OwnAddress>,
}

/// Settings of Socket.IO.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Real time")]
pub struct RealtimeConfig {
    /// Interval between two pings of a client
    #[arg(long, env = "CONFAB_PING_INTERVAL", default_value = "25s", value_name = "DURATION", value_parser = some_time)]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping
    #[arg(long, env = "CONFAB_PING_TIMEOUT", default_value = "20s", value_name = "DURATION", value_parser = some_time)]
    pub ping_timeout: Duration,
    /// Most events per second from one socket, with bursts of twice as many; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_EVENTS_PER_SECOND", default_value_t = 2000, value_name = "COUNT")]
    pub max_events_per_second: u32,
    /// Most rooms that one socket may join; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_ROOMS_PER_SOCKET", default_value_t = 1000, value_name = "COUNT")]
    pub max_rooms_per_socket: usize,
    /// Most sockets of one user at this gateway, and never more than four fifths of the connections; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_SOCKETS_PER_USER", default_value_t = 10_000, value_name = "COUNT")]
    pub max_sockets_per_user: usize,
    /// Most sockets of one address at this gateway, over WebSocket and polling, and never more than four fifths of the
    /// connections; 0 = no limit. All clients behind one NAT have one address
    #[arg(long, env = "CONFAB_MAX_SOCKETS_PER_ADDRESS", default_value_t = 100_000, value_name = "COUNT")]
    pub max_sockets_per_address: usize,
    /// Most members of a room with read receipts, at most 1000; 0 = no read receipts
    #[arg(long, env = "CONFAB_RECEIPTS_MAX_MEMBERS", default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub receipts_max_members: u32,
    /// Most sessions that have not sent CONNECT; above that, the gateway closes the oldest one of the address that has
    /// the most; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_PENDING_SESSIONS", default_value_t = 4096, value_name = "COUNT")]
    pub max_pending_sessions: usize,
    /// How long a new session may take to send CONNECT; 0s = no limit
    #[arg(long, env = "CONFAB_CONNECT_TIMEOUT", default_value = "10s", value_name = "DURATION", value_parser = patience)]
    pub connect_timeout: Duration,
    /// Most bytes of one packet from a client, including attachments; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_PACKET", default_value = "1114112", value_name = "BYTES", value_parser = bytes)]
    pub max_packet: usize,
    /// Most bytes buffered for all clients together: data and responses that clients have not read, and incomplete
    /// requests. Above that, the gateway closes sockets and connections of the user with the most bytes; 0 = no limit
    #[arg(long, env = "CONFAB_MAX_OUTBOX_BYTES", default_value = "268435456", value_name = "BYTES", value_parser = bytes)]
    pub max_outbox_bytes: usize,
}

impl RealtimeConfig {
    /// The settings of the Socket.IO server; `leave_within`: how long a drained client's events may take.
    pub fn of_server(&self, leave_within: Duration) -> confab_socketio::Config {
        confab_socketio::Config {
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            connect_timeout: self.connect_timeout,
            max_events_per_second: self.max_events_per_second,
            max_pending_sessions: self.max_pending_sessions,
            max_packet: self.max_packet,
            leave_within,
        }
    }
}

/// Parses a duration; zero means no limit (136 years).
fn patience(text: &str) -> Result<Duration, String> {
    const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
    duration(text).map(|duration| if duration.is_zero() { FOR_EVER } else { duration })
}

/// Parses a number of bytes; 0 means no limit.
fn bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Ok(usize::MAX),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err("must be a whole number".into()),
    }
}

/// Parses a host, optionally with a port; an empty text (an empty setting) is no host.
fn host(text: &str) -> Result<Host, String> {
    if text.trim().is_empty() {
        return Ok(Host::default());
    }
    Host::parse(text).ok_or_else(|| "must look like chat.example.org or chat.example.org:8443".into())
}

/// Parses an origin as browsers send it, or `*`; an empty text (an empty setting) is no origin.
fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    if ["", "*"].contains(&text) {
        return Ok(text.into());
    }
    let refused = || "must look like https://chat.example.org, or be `null`, `file://` or `*`".to_owned();
    let origin = canonical(text.trim_end_matches('/')).or_else(|| canonical(text)).ok_or_else(refused)?;
    if origin.contains(['*', ' ', '@']) { Err(refused()) } else { Ok(origin) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        gateway: GatewayConfig,
    }

    fn with(arguments: &[&str]) -> Result<GatewayConfig, clap::Error> {
        Program::try_parse_from(["program"].iter().chain(arguments)).map(|program| program.gateway)
    }

    #[test]
    fn defaults_match_the_documentation() {
        let config = with(&[]).unwrap();
        assert!(!config.anonymous_read && config.allowed_origins.is_none());
        assert_eq!((config.request_timeout, config.max_connections), (Duration::from_millis(2500), 100_000));
        let realtime = config.realtime;
        assert_eq!((realtime.ping_interval, realtime.ping_timeout), (Duration::from_secs(25), Duration::from_secs(20)));
        assert_eq!(
            (realtime.max_events_per_second, realtime.max_rooms_per_socket, realtime.max_sockets_per_user),
            (2000, 1000, 10_000)
        );
        assert_eq!((realtime.connect_timeout, realtime.max_packet), (Duration::from_secs(10), 1_114_112));
        assert_eq!((realtime.max_sockets_per_address, realtime.max_pending_sessions), (100_000, 4096));
    }

    #[test]
    fn with_issuers_users_find_the_users_of_common_rooms() {
        let entry = r#"[{"issuer": "https://a.example", "audience": "b", "keyFile": "c", "algorithms": ["EdDSA"]}]"#;
        for (arguments, directory) in [
            (&[][..], UserDirectory::All),
            (&["--issuers", "[]"], UserDirectory::All),
            (&["--issuers", entry], UserDirectory::Shared),
            (&["--issuers", entry, "--user-directory", "all"], UserDirectory::All),
            (&["--user-directory", "shared"], UserDirectory::Shared),
        ] {
            assert_eq!(with(arguments).unwrap().directory(), directory, "{arguments:?}");
        }
        assert!(with(&["--user-directory", "none"]).is_err());
    }

    #[test]
    fn zero_turns_a_limit_off() {
        let realtime = with(&["--connect-timeout", "0s", "--max-packet", "0"]).unwrap().realtime;
        assert!(realtime.connect_timeout > Duration::from_secs(3600 * 24 * 365));
        assert_eq!(realtime.max_packet, usize::MAX);
        assert!(with(&["--max-packet", "-1"]).is_err());
    }

    #[test]
    fn an_empty_list_of_proxies_trusts_no_proxy() {
        let proxies = |text: &str| {
            with(&["--trusted-proxies", text]).map(|config| config.trusted_proxies.into_iter().flatten().count())
        };
        assert_eq!(proxies("").unwrap(), 0);
        assert_eq!(proxies("10.0.0.0/8, ::1").unwrap(), 2);
        assert!(proxies("10.0.0.0/8,proxy").is_err());
    }

    #[test]
    fn malformed_origins_are_rejected_at_startup() {
        let origins =
            |text: &str| with(&["--allowed-origins", text]).map(|config| config.allowed_origins.unwrap_or_default());
        assert_eq!(origins("https://A.example/, http://b:3000").unwrap(), ["https://a.example", "http://b:3000"]);
        assert_eq!(origins("*").unwrap(), ["*"]);
        assert_eq!(
            origins("https://a:443,http://b:80/,http://c:443").unwrap(),
            ["https://a", "http://b", "http://c:443"]
        );
        assert_eq!(
            origins("null, file://, capacitor://localhost").unwrap(),
            ["null", "file://", "capacitor://localhost"]
        );
        for bad in
            ["example.org", "https://*.example.org", "https://a/b", "https://", "nul", "file:///home", "https://u@a"]
        {
            assert!(origins(bad).is_err(), "{bad}");
        }
        assert_eq!(with(&["--public-hosts", "a.example, B.example:1"]).unwrap().public_hosts.len(), 2);
        for bad in ["https://a.example", "a.example/x", "u@a.example", "a.example:x", "*.example", ":80"] {
            assert!(with(&["--public-hosts", bad]).is_err(), "{bad}");
        }
        assert!(with(&["--anonymous-read", "true"]).unwrap().anonymous_read);
        assert!(with(&["--anonymous-read", "yes"]).is_err());
    }
}

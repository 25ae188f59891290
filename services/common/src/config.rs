//! Settings: `CONFAB_…` variables. Each setting is also a `--flag`, and can be read from the file that `CONFAB_…_FILE`
//! names.

mod calls;
mod read;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use calls::{CallsConfig, TlsFiles};
pub(crate) use calls::{TLS_FILES, check_listener};
pub use read::read;

/// Every setting of every Confab program, without the prefix `CONFAB_`. All replicas of a cluster can share one
/// environment, and a misspelled name is still an error.
pub const KNOWN: &[&str] = &[
    "ACCEPT_DRAIN",
    "ADMIN_LISTEN",
    "ALLOWED_ORIGINS",
    "ANONYMOUS_READ",
    "AUTH_STORE",
    "AUTH_URL",
    "BUS",
    "CA_FILE",
    "CLUSTER_KEY",
    "CONNECT_TIMEOUT",
    "DATA_DIR",
    "DRAIN",
    "FILE_STORE",
    "FILE_URL",
    "FORWARD_ADDRESS",
    "FORWARD_LISTEN",
    "GATEWAY_URL",
    "GRPC_REFLECTION",
    "IDLE_TIMEOUT",
    "INSECURE_BUS",
    "INSECURE_GRPC",
    "ISSUERS",
    "LIMIT_ACCOUNT_LOGIN",
    "LIMIT_ACCOUNT_PASSWORD",
    "LIMIT_CHANGE_ROOM",
    "LIMIT_CREATE_ROOM",
    "LIMIT_FILE_LINK",
    "LIMIT_JOIN_ROOM",
    "LIMIT_LOGIN",
    "LIMIT_REFRESH",
    "LIMIT_SEARCH",
    "LIMIT_SEND",
    "LIMIT_SIGNUP",
    "LIMIT_UPLOAD",
    "LIMIT_USER_DIRECTORY",
    "LIMIT_WRONG_PASSWORD",
    "LIMIT_WRONG_TOKEN",
    "LINK_TTL",
    "LISTEN",
    "LOG",
    "LOG_FORMAT",
    "MAX_BYTES_PER_USER",
    "MAX_CONNECTIONS",
    "MAX_DOWNLOADS",
    "MAX_EVENTS_PER_SECOND",
    "MAX_FILES_PER_USER",
    "MAX_FILE_SIZE",
    "MAX_OUTBOX_BYTES",
    "MAX_PACKET",
    "MAX_PENDING_SESSIONS",
    "MAX_ROOMS_PER_SOCKET",
    "MAX_ROOMS_PER_USER",
    "MAX_SOCKETS_PER_ADDRESS",
    "MAX_SOCKETS_PER_USER",
    "MAX_UPLOADS",
    "MEDIA_LINK_TTL",
    "MESSAGE_STORE",
    "MESSAGE_URL",
    "MIGRATE",
    "OBJECTS",
    "ORPHAN_AGE",
    "PARTITIONS",
    "PEERS",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "POSTGRES_CONNECTIONS",
    "PUBLIC_HOSTS",
    "REFRESH_TTL",
    "REQUEST_TIMEOUT",
    "REQUIRE_USER_TOKENS",
    "ROOM_STORE",
    "ROOM_URL",
    "S3_ACCESS_KEY_ID",
    "S3_ENDPOINT",
    "S3_REGION",
    "S3_SECRET_ACCESS_KEY",
    "S3_SESSION_TOKEN",
    "SEARCH",
    "SIGNING_KEY",
    "SIGNUP",
    "SWEEP_EVERY",
    "TLS_CA_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TOKEN_TTL",
    "TRUSTED_PROXIES",
    "TRUST_TRACEPARENT",
    "UPLOAD_MEMORY",
    "USER_DIRECTORY",
];

/// A setting that must not be printed: a key, or a URL that may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret, which must not be printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

/// Settings of every program
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Every program")]
pub struct CommonConfig {
    /// Address to serve on
    #[arg(long, env = "CONFAB_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = address)]
    pub listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "CONFAB_ADMIN_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS", value_parser = address)]
    pub admin_listen: SocketAddr,
    /// PEM file of private certificate authorities. TLS to Postgres, Redis, the S3 store and the issuers in
    /// CONFAB_ISSUERS trusts them in addition to the system's authorities
    #[arg(long, env = "CONFAB_CA_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,
    /// What to log: a level, or directives such as `info,confab_gateway=debug`
    #[arg(long, env = "CONFAB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// `text` for people, `json` for machines
    #[arg(long, env = "CONFAB_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Time limit of a shutdown after SIGTERM, during which requests finish and sockets move to other replicas
    #[arg(long, env = "CONFAB_DRAIN", default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub drain: Duration,
    /// How long to accept connections after SIGTERM, until the load balancer has removed this process
    #[arg(long, env = "CONFAB_ACCEPT_DRAIN", default_value = "0s", value_name = "DURATION", value_parser = duration)]
    pub accept_drain: Duration,
    /// Settings of calls between programs
    #[command(flatten)]
    pub calls: CallsConfig,
}

/// The format of log lines
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For machines
    Json,
}

/// Whether a program changes its database schema at start
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Migrate {
    /// Apply missing migrations, under a lock
    Auto,
    /// Wait until another process has applied them
    Off,
}

/// Parses the address of a listening socket.
///
/// # Errors
/// When the text is not an IP address with a port. The message contains examples.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|_| text.parse::<IpAddr>().is_err());
        let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
        format!(
            "must be an IP address with a port: 127.0.0.1:{port} for this machine alone, 0.0.0.0:{port} or [::]:{port} for all networks"
        )
    })
}

/// Parses a duration such as `250ms`, `30s`, `5m`, `24h`.
///
/// # Errors
/// When the text is not a duration. The message contains examples.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("must be a number with a unit: 250ms, 30s, 5m, 24h".into()),
    };
    u64::from_str(number)
        .ok()
        .and_then(|n| n.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a whole number with a unit: 250ms, 30s, 5m, 24h".into())
}

/// Parses a whole number from 1.
///
/// # Errors
/// When the text is not such a number.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number, at least 1".into())
}

/// Parses a duration above zero, in the format of [`duration`].
///
/// # Errors
/// When the text is not such a duration.
pub fn some_time(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| if time.is_zero() { Err("must not be zero".into()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_must_be_ip_with_port() {
        for good in ["127.0.0.1:8080", "[::]:8080", "[fd00::12]:1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for (bad, port) in [
            ("9000", 9000),
            (":9000", 9000),
            ("localhost:9000", 9000),
            ("127.0.0.1", 8080),
            ("::1", 8080),
            ("[::1]", 8080),
            ("", 8080),
        ] {
            let error = address(bad).unwrap_err();
            assert!(
                error.contains(&format!("127.0.0.1:{port} for")) && error.contains(&format!("[::]:{port} ")),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

//! Finds Redis from the URL of the bus.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use percent_encoding::percent_decode_str;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    TlsMode,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::tls::take;
use crate::handshake::{REDIS, explain};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for finding the master. A Sentinel that does not answer takes one second of it.
const FIND_MASTER_LIMIT: Duration = Duration::from_secs(4);
const UNUSABLE: &str = "cannot be used";
/// The default port of a Sentinel.
const SENTINEL: u16 = 26379;

#[derive(Clone)]
pub(crate) enum Address {
    /// One server, or any node of a cluster; a cluster forwards publications to all its nodes.
    Server(Arc<Client>),
    /// The master that the Sentinels report.
    Master(Arc<Mutex<SentinelClient>>),
}

impl Address {
    /// Parses a URL with one of the schemes of Redis or Valkey. Returns `None` for any other scheme.
    ///
    /// # Errors
    /// When the URL is malformed. The message does not quote the URL, which may contain a password.
    pub fn parse(url: &str) -> anyhow::Result<Option<Self>> {
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        let (server, sentinel) = scheme.split_once('+').map_or((scheme, None), |(server, kind)| (server, Some(kind)));
        let tls = match server {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Ok(None),
        };
        match sentinel {
            None => Ok(Some(Self::Server(Arc::new(client(tls, rest)?)))),
            Some("sentinel") => Ok(Some(Self::Master(Arc::new(Mutex::new(sentinels(tls, rest)?))))),
            Some("cluster") => bail!("has no scheme for a cluster: write redis:// and the address of any node"),
            Some(_) => Ok(None),
        }
    }

    /// Opens a connection for commands to the server, or to this node (`host:port`) of its cluster. Returns the reason
    /// of a failure. The client library's own time limit of half a second is off, because the callers have their own
    /// limits for answers.
    pub async fn connection(&self, node: Option<&str>) -> Result<MultiplexedConnection, String> {
        let client = self.client().await?;
        let client = match node {
            Some(node) => at_node(&client, node)?,
            None => client,
        };
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        match timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(connected) => connected.map_err(reason),
            Err(_) => Err(silent(&client)),
        }
    }

    /// Opens a connection for subscriptions, or returns the reason of the failure.
    pub async fn subscriber(&self) -> Result<PubSub, String> {
        let client = self.client().await?;
        match timeout(CONNECT_TIMEOUT, client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(reason),
            Err(_) => Err(silent(&client)),
        }
    }

    async fn client(&self) -> Result<Client, String> {
        match self {
            Self::Server(client) => Ok(Client::clone(client)),
            Self::Master(sentinels) => {
                match timeout(FIND_MASTER_LIMIT, async { sentinels.lock().await.async_get_client().await }).await {
                    Ok(found) => found.map_err(reason),
                    Err(_) => Err("no Sentinel answers".into()),
                }
            }
        }
    }
}

/// Returns a client of another node of the same cluster, with the same account and the same TLS. A cluster names the
/// node as `host:port`, or as `:port` if it has the same host.
fn at_node(client: &Client, node: &str) -> Result<Client, String> {
    let named = node.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = named.ok_or_else(|| format!("the cluster names a node {node:?}, without a port"))?;
    let of = |own: String| if host.is_empty() { own } else { host.to_owned() };
    let info = client.get_connection_info().clone();
    let address = match info.addr().clone() {
        ConnectionAddr::Tcp(own, _) => ConnectionAddr::Tcp(of(own), port),
        ConnectionAddr::TcpTls { host: own, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: of(own), port, insecure, tls_params }
        }
        _ => return Err("only a server with a port can belong to a cluster".into()),
    };
    Client::open(info.set_addr(address)).map_err(|error| error.to_string())
}

fn reason(error: RedisError) -> String {
    explain(&error, &REDIS).unwrap_or_else(|| error.to_string())
}

/// The reason of a failure without an answer. A server without TLS waits for the rest of a command.
fn silent(client: &Client) -> String {
    match client.get_connection_info().addr() {
        ConnectionAddr::TcpTls { .. } => format!("Redis does not answer; with TLS, {}", REDIS.plain),
        _ => "Redis does not answer".into(),
    }
}

/// Parses the part of a server's URL after the scheme.
fn client(tls: bool, rest: &str) -> anyhow::Result<Client> {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (certificates, options) = take(tls, options).context(UNUSABLE)?;
    let info = if options.is_empty() { info(tls, place) } else { info(tls, &format!("{place}?{options}")) }?;
    let client = match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates),
        _ => Client::open(info),
    };
    client.ok().context("is not a valid redis:// URL")
}

/// Parses the part of a server's URL after the scheme, without options that name certificates.
fn info(tls: bool, rest: &str) -> anyhow::Result<ConnectionInfo> {
    ensure!(!rest.contains('#'), "is not a valid redis:// URL: it has a #; in a password, write that as %23");
    let scheme = if tls { "rediss" } else { "redis" };
    format!("{scheme}://{rest}").into_connection_info().ok().context("is not a valid redis:// URL")
}

/// Parses the part of a Sentinel URL after the scheme: `user:password@host:port,host:port/master/db`. The account is
/// the master's. The options `sentinel_username` and `sentinel_password` name an account of the Sentinels; those that
/// name certificates are for the Sentinels and the master.
fn sentinels(tls: bool, rest: &str) -> anyhow::Result<SentinelClient> {
    let form =
        "is not a valid URL of Sentinels, which is redis+sentinel://host:26379,host:26379/master, or …/master/db";
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (certificates, options) = take(tls, options).context(UNUSABLE)?;
    let (account, rest) = rest.rsplit_once('@').map_or(("", rest), |(account, rest)| (account, rest));
    let (hosts, path) = rest.split_once('/').context(form)?;
    let (master, db) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    ensure!(!master.is_empty(), form);
    let master = percent_decode_str(master).decode_utf8().ok().context(form)?;
    let server = info(tls, &format!("{account}@master/{db}")).ok().context(form)?;
    let addresses = hosts.split(',').map(|host| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{SENTINEL}") };
        info(tls, &format!("{host}{port}")).map(|info| info.addr().clone())
    });
    let addresses = addresses.collect::<anyhow::Result<Vec<_>>>().ok().context(form)?;
    build(tls.then_some(certificates), addresses, &master, server, &options).context(form)
}

fn build(
    certificates: Option<TlsCertificates>,
    addresses: Vec<ConnectionAddr>,
    master: &str,
    server: ConnectionInfo,
    options: &str,
) -> anyhow::Result<SentinelClient> {
    let server = server.redis_settings();
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_db(server.db())
        .set_client_to_redis_protocol(server.protocol());
    if let Some(name) = server.username() {
        builder = builder.set_client_to_redis_username(name);
    }
    if let Some(password) = server.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = percent_decode_str(value).decode_utf8()?;
        builder = match name {
            "sentinel_username" => builder.set_client_to_sentinel_username(value),
            "sentinel_password" => builder.set_client_to_sentinel_password(value),
            _ => bail!("its options are sentinel_username and sentinel_password"),
        };
    }
    if let Some(both) = certificates {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_redis_certificates(both.clone());
        builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure).set_client_to_sentinel_certificates(both);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_and_valkey_schemes_are_accepted() {
        for url in
            ["redis://h", "rediss://u:p@h:1/2", "valkey://h", "valkeys://[fd00::12]:6380", "redis://h?protocol=resp3"]
        {
            assert!(matches!(Address::parse(url), Ok(Some(Address::Server(_)))), "{url}");
        }
        for url in [
            "redis+sentinel://a,b:1,[fd00::12],[::1]:2/chat",
            "rediss+sentinel://u:p%40ss@a/chat/3",
            "valkey+sentinel://:p@a/chat/?sentinel_username=s&sentinel_password=p%26",
            "valkeys+sentinel://a/chat",
        ] {
            assert!(matches!(Address::parse(url), Ok(Some(Address::Master(_)))), "{url}");
        }
        for url in ["amqp://h", "redis", "redis+unix:///x", "local:", ""] {
            assert!(matches!(Address::parse(url), Ok(None)), "{url}");
        }
    }

    #[test]
    fn other_nodes_of_a_cluster_share_the_account() {
        let at = |url: &str, node: &str| {
            let Ok(Some(Address::Server(client))) = Address::parse(url) else { panic!("{url}") };
            at_node(&client, node).map(|node| {
                let info = node.get_connection_info();
                let password = info.redis_settings().password().map(str::to_owned);
                (info.addr().to_string(), matches!(info.addr(), ConnectionAddr::TcpTls { .. }), password)
            })
        };
        let secret = Some("p".to_owned());
        assert_eq!(at("redis://u:p@a:1", "10.0.0.2:7000"), Ok(("10.0.0.2:7000".into(), false, secret.clone())));
        assert_eq!(at("redis://u:p@a:1", ":7000"), Ok(("a:7000".into(), false, secret.clone())));
        assert_eq!(at("rediss://u:p@a:1", "b.example:7000"), Ok(("b.example:7000".into(), true, secret)));
        assert!(at("redis://a", "b").is_err());
    }

    #[test]
    fn errors_name_the_expected_form_and_no_secret() {
        for (url, why) in [
            ("redis://u:hunter2@", "is not a valid redis:// URL"),
            ("redis://u:hunter2@h/x", "is not a valid redis:// URL"),
            ("rediss://u:hunter2@h#insecure", "it has a #"),
            ("redis://u:hunter2@h?sslrootcert=/a.pem", "cannot be used: its option `sslrootcert` needs TLS"),
            (
                "rediss://u:hunter2@h?sslrootcert=/nowhere/ca.pem",
                "its option `sslrootcert`: cannot read /nowhere/ca.pem",
            ),
            (
                "rediss+sentinel://u:hunter2@h/chat?sslcert=/a.pem",
                "its options `sslcert` and `sslkey` require each other",
            ),
            ("redis+cluster://u:hunter2@h", "the address of any node"),
            ("redis+sentinel://u:hunter2@h", "redis+sentinel://host:26379"),
            ("redis+sentinel://u:hunter2@h/", "redis+sentinel://host:26379"),
            ("redis+sentinel://u:hunter2@h:x/chat", "redis+sentinel://host:26379"),
            ("redis+sentinel://u:hunter2@h/chat/x", "redis+sentinel://host:26379"),
            ("redis+sentinel://h/chat?hunter2=x", "its options are sentinel_username and sentinel_password"),
        ] {
            let error = format!("{:#}", Address::parse(url).err().unwrap_or_else(|| panic!("{url}")));
            assert!(error.contains(why) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}

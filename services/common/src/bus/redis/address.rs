//! Where Redis is, by the URL of the bus.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use percent_encoding::percent_decode_str;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates, TlsMode};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::trust::Authorities;

const CONNECT: Duration = Duration::from_secs(1);
/// How long it may take to find the master: a Sentinel that is away takes a second.
const FIND: Duration = Duration::from_secs(4);
/// The usual port of a Sentinel.
const SENTINEL: u16 = 26379;

/// The address of Redis.
#[derive(Clone)]
pub(in crate::bus) enum Address {
    /// One server, or any node of a cluster, which passes publications on to all others.
    Server(Arc<Client>),
    /// The master that Sentinels name.
    Master(Arc<Mutex<SentinelClient>>),
}

impl Address {
    /// The address in a URL with one of Redis' or Valkey's schemes; `None` for another scheme.
    ///
    /// # Errors
    /// When the URL is malformed. The message does not quote it: it may contain a password.
    pub fn parse(url: &str) -> anyhow::Result<Option<Self>> {
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        let (server, sentinel) = scheme.split_once('+').map_or((scheme, None), |(server, kind)| (server, Some(kind)));
        let tls = match server {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Ok(None),
        };
        match sentinel {
            None => Ok(Some(Self::Server(Arc::new(client(info(tls, rest)?)?)))),
            Some("sentinel") => Ok(Some(Self::Master(Arc::new(Mutex::new(sentinels(tls, rest)?))))),
            Some("cluster") => bail!("has no scheme of its own for a cluster: write redis:// and the address of any node"),
            Some(_) => Ok(None),
        }
    }

    /// A connection for publications. Its own time limit of half a second is off: the callers have their own.
    pub async fn publisher(&self) -> Option<MultiplexedConnection> {
        let client = self.client().await.ok()?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        timeout(CONNECT, client.get_multiplexed_async_connection_with_config(&config)).await.ok()?.ok()
    }

    /// A connection for subscriptions, or why there is none.
    pub async fn subscriber(&self) -> Result<PubSub, String> {
        let client = self.client().await?;
        match timeout(CONNECT, client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("Redis does not answer".into()),
        }
    }

    async fn client(&self) -> Result<Client, String> {
        match self {
            Self::Server(client) => Ok(Client::clone(client)),
            Self::Master(sentinels) => match timeout(FIND, async { sentinels.lock().await.async_get_client().await }).await {
                Ok(found) => found.map_err(|error| error.to_string()),
                Err(_) => Err("no Sentinel answers".into()),
            },
        }
    }
}

fn client(info: ConnectionInfo) -> anyhow::Result<Client> {
    let client = match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates()),
        _ => Client::open(info),
    };
    client.ok().context("is not a valid redis:// URL")
}

/// What follows the scheme of a server's URL.
fn info(tls: bool, rest: &str) -> anyhow::Result<ConnectionInfo> {
    ensure!(!rest.contains('#'), "is not a valid redis:// URL: it has a #; in a password, write that as %23");
    let scheme = if tls { "rediss" } else { "redis" };
    format!("{scheme}://{rest}").into_connection_info().ok().context("is not a valid redis:// URL")
}

/// What follows the scheme of a URL of Sentinels: `user:password@host:port,host:port/master/db`. The account is that of
/// the master; an account of the Sentinels is in `sentinel_username` and `sentinel_password`.
fn sentinels(tls: bool, rest: &str) -> anyhow::Result<SentinelClient> {
    let form = "is not a valid URL of Sentinels, which is redis+sentinel://host:26379,host:26379/master, or …/master/db";
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
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
    build(tls, addresses, &master, server, options).context(form)
}

fn build(tls: bool, addresses: Vec<ConnectionAddr>, master: &str, server: ConnectionInfo, options: &str) -> anyhow::Result<SentinelClient> {
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
    if tls {
        let both = certificates();
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_redis_certificates(both.clone());
        builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure).set_client_to_sentinel_certificates(both);
    }
    Ok(builder.build()?)
}

fn certificates() -> TlsCertificates {
    TlsCertificates { client_tls: None, root_cert: Some(Authorities::own().pem().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_of_redis_and_valkey() {
        for url in ["redis://h", "rediss://u:p@h:1/2", "valkey://h", "valkeys://[fd00::12]:6380", "redis://h?protocol=resp3"] {
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
    fn an_error_says_how_it_is_written_and_no_secret() {
        for (url, why) in [
            ("redis://u:hunter2@", "is not a valid redis:// URL"),
            ("redis://u:hunter2@h/x", "is not a valid redis:// URL"),
            ("rediss://u:hunter2@h#insecure", "it has a #"),
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

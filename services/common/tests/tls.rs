//! TLS to Postgres and Redis with certificates of a private authority.

#[path = "bus/redis_server.rs"]
#[allow(dead_code, reason = "the tests of the bus use all of it")]
mod redis_server;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use confab_common::bus::{Bus, Notice};
use confab_common::limit::Limiter;
use confab_common::pg::{Pool, PostgresConfig};
use confab_common::readiness::Readiness;
use confab_common::testing::{self, Authority, Front};
use confab_common::trust::Authorities;
use tokio::time::timeout;

use redis_server::RedisServer;

const UNTRUSTED: &str = "name the file of the authority in CONFAB_CA_FILE";
const OTHER_HOST: &str = "the host in the URL must be a name in the certificate";

async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let becoming = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), becoming).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The authority that this process trusts.
fn trusted() -> &'static Authority {
    static TRUSTED: OnceLock<Authority> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let authority = Authority::new();
        Authorities::add(&authority.certificate()).expect("an authority");
        authority
    })
}

/// Splits a URL into the account, the address and the database.
fn parts(url: &str) -> (String, String, String) {
    let (_, rest) = url.split_once("://").expect("a URL");
    let (account, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
    (account.into(), address.into(), database.into())
}

/// Connects with these options to a Postgres behind a certificate for this name.
async fn connects(authority: &Authority, name: &str, options: &str) -> Result<(), String> {
    connects_with(&authority.issue(name), options).await
}

async fn connects_with(certificate: &(PathBuf, PathBuf), options: &str) -> Result<(), String> {
    trusted();
    let (account, address, database) = parts(testing::database().await.expose());
    let front = Front::of(&address, certificate).await;
    let url = format!("postgres://{account}@127.0.0.1:{}/{database}?{options}", front.port()).into();
    // A command would wait that long for a server that may come back.
    let patience = Some(Duration::from_secs(60));
    let config = PostgresConfig { postgres_connections: 1, patience, ..PostgresConfig::default() };
    Pool::open(&url, "tls", refinery::Runner::new(&[]), &config).await.map(drop).map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn postgres_certificate_is_verified_as_configured() {
    let (ours, other) = (trusted(), Authority::new());
    let root = format!("sslrootcert={}", other.certificate().display());
    let (here, elsewhere) = ("IP:127.0.0.1", "DNS:elsewhere");
    let prefer = format!("sslmode=prefer&{root}");
    let (full, ca) = (format!("sslmode=verify-full&{root}"), format!("sslmode=verify-ca&{root}"));
    for (authority, name, options, refused) in [
        (ours, here, "sslmode=verify-full", None),
        (ours, here, "sslmode=require", None),
        (ours, here, "sslmode=verify-ca&channel_binding=disable", None),
        (ours, here, "ssl_min_protocol_version=TLSv1.3&sslmode=require", None),
        (ours, elsewhere, "sslmode=verify-full", Some(OTHER_HOST)),
        (ours, elsewhere, "sslmode=require", Some(OTHER_HOST)),
        (ours, elsewhere, "sslmode=verify-ca", None),
        (&other, here, "sslmode=verify-full", Some(UNTRUSTED)),
        (&other, here, "sslmode=verify-ca", Some(UNTRUSTED)),
        (&other, elsewhere, "sslmode=prefer", None),
        (&other, elsewhere, "", None),
        (&other, here, &*full, None),
        (&other, elsewhere, &*ca, None),
        (&other, here, &*root, None),
        (&other, elsewhere, &*root, Some(OTHER_HOST)),
        (&other, elsewhere, &*prefer, None),
        (ours, here, &*full, Some(UNTRUSTED)),
        (ours, here, &*root, Some(UNTRUSTED)),
        (ours, here, &*prefer, Some(UNTRUSTED)),
    ] {
        let connected = timeout(Duration::from_secs(20), connects(authority, name, options)).await.expect("no waiting");
        let error = connected.err();
        let is_expected = match (refused, &error) {
            (None, None) => true,
            (Some(why), Some(error)) => error.contains(why),
            _ => false,
        };
        assert!(is_expected, "{name} {options}: {error:?}");
    }
}

#[tokio::test]
async fn expired_certificate_is_reported() {
    let expiring = trusted().issue_for("IP:127.0.0.1,DNS:expiring", 0);
    eventually("the certificate has expired", async || {
        let connected = connects_with(&expiring, "sslmode=verify-full").await;
        connected
            .is_err_and(|error| error.contains("the certificate of Postgres has expired") && error.contains("renew"))
    })
    .await;
}

#[tokio::test]
async fn server_that_waits_reports_the_certificate_in_readiness() {
    let (account, address, database) = parts(testing::database().await.expose());
    let front = Front::of(&address, &Authority::new().issue("IP:127.0.0.1")).await;
    let url = format!("postgres://{account}@127.0.0.1:{}/{database}?sslmode=require", front.port()).into();
    trusted();
    let readiness = Readiness::default();
    let config = PostgresConfig { readiness: readiness.clone(), ..PostgresConfig::default() };
    let opening =
        tokio::spawn(async move { Pool::open(&url, "tls", refinery::Runner::new(&[]), &config).await.map(drop) });
    eventually("the note", async || readiness.notes().contains(UNTRUSTED)).await;
    assert!(readiness.notes().starts_with("; tls store: the certificate of Postgres is from an authority"));
    opening.abort();
}

#[tokio::test]
async fn missing_tls_is_an_error_only_if_required() {
    trusted();
    let url = testing::database().await;
    for (options, works) in [("sslmode=prefer", true), ("sslmode=verify-full", false), ("sslrootcert=system", false)] {
        let url = format!("{}?{options}", url.expose()).into();
        let config =
            PostgresConfig { postgres_connections: 1, patience: Some(Duration::ZERO), ..PostgresConfig::default() };
        let opened = Pool::open(&url, "tls", refinery::Runner::new(&[]), &config).await;
        assert_eq!(opened.is_ok(), works, "{options}");
        let advice = "Postgres does not answer with TLS: set `ssl = on` in Postgres";
        assert!(opened.err().is_none_or(|error| error.to_string().contains(advice)), "{options}");
    }
}

#[tokio::test]
async fn redis_certificate_must_be_from_a_trusted_authority() {
    let (_, address, _) = parts(testing::redis().expose());
    let front = async |authority: &Authority| Front::of(&address, &authority.issue("DNS:localhost")).await.port();
    let up = async |port: u16| {
        let bus = Bus::open(&format!("rediss://localhost:{port}").into(), None).expect("a valid URL");
        let (_subscriptions, mut notices) = bus.listen();
        timeout(Duration::from_secs(3), notices.next()).await
    };
    assert_eq!(up(front(trusted()).await).await, Ok(Some(Notice::Up)));
    // Longer than several attempts take.
    assert!(up(front(&Authority::new()).await).await.is_err());
}

/// Returns the options of a URL that name this authority and this client certificate.
fn options(authority: &Path, (certificate, key): &(PathBuf, PathBuf)) -> String {
    format!("sslrootcert={}&sslcert={}&sslkey={}", authority.display(), certificate.display(), key.display())
}

/// Waits until `/readyz` would report this about the bus.
async fn bus_reports(url: String, why: &str) {
    let readiness = Readiness::default();
    let _bus = Bus::reporting(&url.clone().into(), None, &readiness).expect("a valid URL");
    eventually(why, async || readiness.notes().starts_with("; bus: ") && readiness.notes().contains(why)).await;
}

/// A Redis that accepts TLS only from clients with a certificate carries messages and rate limits.
#[tokio::test]
async fn redis_with_client_certificates_carries_bus_and_limits() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("IP:127.0.0.1");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let (port_text, ca) = (port.to_string(), text(&authority.certificate()));
    let (certificate, key) = (text(&certificate), text(&key));
    let server = [
        ["--tls-port", &port_text],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", "yes"],
        ["--save", ""],
    ]
    .concat();
    let redis = RedisServer::with(&server).await;
    let client = authority.issue("DNS:client");
    let own = options(&authority.certificate(), &client);

    let readiness = Readiness::default();
    let url = format!("rediss://127.0.0.1:{port}?{own}").into();
    let bus = Bus::reporting(&url, None, &readiness).expect("a valid URL");
    let (subscriptions, mut notices) = bus.listen();
    subscriptions.subscribe("tls").await;
    eventually("a message arrives", async || {
        bus.publish("tls", "hello");
        let soon = timeout(Duration::from_millis(200), notices.next()).await;
        matches!(soon, Ok(Some(Notice::Message { payload, .. })) if payload == "hello")
    })
    .await;
    let limiter = Limiter::patient(&bus, None);
    eventually("the limits are shared", async || limiter.is_shared()).await;
    assert_eq!(readiness.notes(), "");
    let used = redis.info("commandstats").await.expect("an answer");
    assert!(used.contains("cmdstat_publish") && used.contains("cmdstat_eval"), "{used}");

    let stranger = Authority::new().issue("DNS:client");
    bus_reports(format!("rediss://127.0.0.1:{port}?sslrootcert={ca}"), "").await;
    bus_reports(format!("rediss://127.0.0.1:{port}?{}", options(&authority.certificate(), &stranger)), "").await;
    bus_reports(format!("rediss://127.0.0.1:{port}?{}", options(&Authority::new().certificate(), &client)), UNTRUSTED)
        .await;
    // The port without TLS.
    bus_reports(format!("rediss://127.0.0.1:{}?{own}", redis.port()), "must be the `tls-port` of Redis").await;
    let front = Front::of(&format!("127.0.0.1:{}", redis.port()), &authority.issue("DNS:elsewhere")).await;
    bus_reports(format!("rediss://127.0.0.1:{}?{own}", front.port()), OTHER_HOST).await;
}

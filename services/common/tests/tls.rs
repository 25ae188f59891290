//! TLS to Postgres and Redis with certificates of a private authority.

use std::sync::OnceLock;
use std::time::Duration;

use confab_common::bus::{Bus, Notice};
use confab_common::pg::{Pool, PostgresConfig};
use confab_common::testing::{self, Authority, Front};
use confab_common::trust::Authorities;
use tokio::time::timeout;

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
    trusted();
    let (account, address, database) = parts(testing::database().await.expose());
    let front = Front::of(&address, &authority.issue(name)).await;
    let url = format!("postgres://{account}@127.0.0.1:{}/{database}?{options}", front.port()).into();
    let config =
        PostgresConfig { postgres_connections: 1, patience: Some(Duration::ZERO), ..PostgresConfig::default() };
    Pool::open(&url, "tls", refinery::Runner::new(&[]), &config).await.map(drop).map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn postgres_certificate_is_verified_as_configured() {
    let (ours, other) = (trusted(), Authority::new());
    let root = format!("sslrootcert={}", other.certificate().display());
    let (here, elsewhere) = ("IP:127.0.0.1", "DNS:elsewhere");
    for (authority, name, options, works) in [
        (ours, here, "sslmode=verify-full", true),
        (ours, here, "sslmode=require", true),
        (ours, here, "sslmode=verify-ca&channel_binding=disable", true),
        (ours, here, "ssl_min_protocol_version=TLSv1.3&sslmode=require", true),
        (ours, elsewhere, "sslmode=verify-full", false),
        (ours, elsewhere, "sslmode=require", false),
        (ours, elsewhere, "sslmode=verify-ca", true),
        (&other, here, "sslmode=verify-full", false),
        (&other, here, "sslmode=verify-ca", false),
        (&other, elsewhere, "sslmode=prefer", true),
        (&other, elsewhere, "", true),
        (&other, here, &format!("sslmode=verify-full&{root}"), true),
        (&other, elsewhere, &format!("sslmode=verify-ca&{root}"), true),
        (ours, here, &format!("sslmode=verify-full&{root}"), false),
        (ours, here, &root, false),
    ] {
        let connected = connects(authority, name, options).await;
        assert_eq!(connected.is_ok(), works, "{name} {options}: {connected:?}");
        if let Err(error) = connected {
            assert!(error.contains("invalid peer certificate"), "{error}");
        }
    }
}

#[tokio::test]
async fn missing_tls_is_an_error_only_if_required() {
    trusted();
    let url = testing::database().await;
    for (options, works) in [("sslmode=prefer", true), ("sslmode=verify-full", false)] {
        let url = format!("{}?{options}", url.expose()).into();
        let config =
            PostgresConfig { postgres_connections: 1, patience: Some(Duration::ZERO), ..PostgresConfig::default() };
        let opened = Pool::open(&url, "tls", refinery::Runner::new(&[]), &config).await;
        assert_eq!(opened.is_ok(), works, "{options}");
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

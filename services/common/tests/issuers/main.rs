//! Tokens of the app's own issuers, verified with keys of real issuers: HTTP servers of these tests.

mod files;
mod fixtures;
mod refresh;
mod servers;
mod tokens;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confab_common::Code;
use confab_common::issuers::{ForeignToken, Issuers, IssuersConfig};
use confab_common::process::Process;
use confab_common::testing::Authority;
use confab_common::trust::Authorities;
use serde_json::{Value, json};

/// The authority that this process trusts.
fn trusted() -> &'static Authority {
    static TRUSTED: OnceLock<Authority> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let authority = Authority::new();
        Authorities::add(&authority.certificate()).expect("an authority");
        authority
    })
}

fn start(entries: &[Value]) -> Issuers {
    start_in(&Process::new(), entries)
}

fn start_in(process: &Process, entries: &[Value]) -> Issuers {
    // Before the first connection.
    trusted();
    let config = IssuersConfig { issuers: Some(Value::from(entries).to_string()) };
    config.check().expect("a valid setting");
    Issuers::start(&config, process).expect("issuers")
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs() as i64
}

/// Valid claims with these changes; `null` removes a claim.
fn claims(issuer: &str, changes: Value) -> Value {
    let mut claims = json!({"iss": issuer, "aud": "chat", "sub": "user_123", "iat": now(), "exp": now() + 3600});
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

async fn valid(issuers: &Issuers, token: &str) -> ForeignToken {
    issuers.verify(token).await.expect("a valid token").expect("one of the issuers")
}

/// Returns the code with which a token is rejected, or `None` for a valid token.
async fn code(issuers: &Issuers, token: &str) -> Option<Code> {
    issuers.verify(token).await.err().map(|error| {
        if error.code == Code::Unauthorized {
            assert_eq!(error.detail, "the token is not valid");
        }
        error.code
    })
}

/// Waits until this check of a token has this result.
async fn becomes(expected: Option<Code>, mut check: impl AsyncFnMut() -> Option<Code>) {
    let becoming = async {
        while check().await != expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), becoming).await.expect("the new keys");
}

/// Advances the clock of tokio. The clock runs otherwise, because these tests use the network.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

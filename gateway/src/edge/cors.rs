//! CORS: which web pages may call this server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use confab_common::metrics::LIMITS;
use confab_common::seldom::EVERY;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_http::cors::{AllowCredentials, AllowHeaders, AllowOrigin, CorsLayer};

use super::REQUEST_ID;
use super::hosts::{self, Host};

/// How long a browser may cache the response to a preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The header form of `clientMessageId`.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Most rejected origins that are logged within [`EVERY`].
const MOST_LOGGED: usize = 16;
/// Longest part of a rejected origin that is logged, in bytes.
const MAX_LOGGED: usize = 100;

/// The allowed origins; clones share them.
#[derive(Debug, Clone)]
pub struct Origins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rule: Rule,
    /// The rejected origins that were logged last.
    // The lock is held for a few comparisons, never across an await.
    logged: Mutex<Vec<(Box<str>, Instant)>>,
}

#[derive(Debug)]
enum Rule {
    Any,
    Listed(Vec<String>),
    Localhost,
}

impl Origins {
    /// The origins of the setting. Without the setting: origins on this machine while the gateway listens on loopback,
    /// otherwise none.
    pub fn new(setting: Option<&[String]>, on_loopback: bool) -> Self {
        let rule = match setting {
            Some(list) if list.iter().any(|origin| origin == "*") => Rule::Any,
            Some(list) => Rule::Listed(list.to_vec()),
            None if on_loopback => Rule::Localhost,
            None => Rule::Listed(Vec::new()),
        };
        Self(Arc::new(Inner { rule, logged: Mutex::default() }))
    }

    /// Whether a page of this origin may call this server.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        match &self.0.rule {
            Rule::Any => true,
            Rule::Listed(list) => canonical(origin).is_some_and(|origin| list.contains(&origin)),
            Rule::Localhost => is_localhost(origin),
        }
    }

    /// Whether a page of this origin may send credentials, such as the cookie of a load balancer. Confab itself reads
    /// no cookies.
    fn trusts(&self, origin: &HeaderValue) -> bool {
        !matches!(self.0.rule, Rule::Any) && self.allows(origin)
    }

    /// Whether the page that sent this request may call this server. Logs and counts a rejection.
    fn admits(&self, origin: &HeaderValue, request: &Parts) -> bool {
        let allowed = self.allows(origin);
        if !allowed && !is_own(origin, &request.uri, &request.headers) {
            LIMITS.hit("origin");
            self.log(origin);
        }
        allowed
    }

    fn log(&self, origin: &HeaderValue) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let origin = &origin[..origin.floor_char_boundary(MAX_LOGGED)];
        let mut logged = self.0.logged.lock();
        logged.retain(|(_, at)| at.elapsed() < EVERY);
        if logged.len() < MOST_LOGGED && logged.iter().all(|(known, _)| **known != *origin) {
            logged.push((origin.into(), Instant::now()));
            drop(logged);
            tracing::warn!(
                origin,
                "a page calls from an origin that is not in CONFAB_ALLOWED_ORIGINS; its browser rejects the responses"
            );
        }
    }

    /// The layer that answers preflight requests and sets the CORS headers.
    pub(super) fn layer(&self) -> CorsLayer {
        let [origins, trusting] = [self.clone(), self.clone()];
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, request| origins.admits(origin, request)))
            .allow_credentials(AllowCredentials::predicate(move |origin, _| trusting.trusts(origin)))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([
                LOCATION,
                RETRY_AFTER,
                REQUEST_ID,
                CONTENT_DISPOSITION,
                CONTENT_RANGE,
                ACCEPT_RANGES,
                ETAG,
                HeaderName::from_static("ratelimit"),
                HeaderName::from_static("ratelimit-policy"),
            ])
            .max_age(MAX_AGE)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.rule {
            Rule::Any => f.write_str("any origin"),
            Rule::Listed(list) if list.iter().all(String::is_empty) => f.write_str("this server's own origin alone"),
            Rule::Listed(list) => write!(f, "this server's own origin and {}", list.join(", ")),
            Rule::Localhost => f.write_str("http://localhost and http://127.0.0.1, on any port,"),
        }
    }
}

/// The canonical form of an origin, for comparisons: in lower case and without the default port of its scheme, which
/// some clients write. `None` for text that is not an origin.
pub fn canonical(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    if ["null", "file://"].contains(&&*origin) {
        return Some(origin);
    }
    let (scheme, authority) = origin.split_once("://")?;
    let authority = authority.strip_suffix(default_port(scheme)).unwrap_or(authority);
    (!scheme.is_empty() && !authority.is_empty() && !authority.contains('/')).then(|| format!("{scheme}://{authority}"))
}

fn default_port(scheme: &str) -> &'static str {
    match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => "://",
    }
}

/// Whether a page was loaded from the host that it calls.
pub fn is_own(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(canonical) else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let own = hosts::of(uri, headers).map(|host| host.without_port(default_port(scheme)));
    own.is_some() && own == Host::parse(authority)
}

/// `http://localhost` or `http://127.0.0.1` on any port.
fn is_localhost(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://") else { return false };
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    (host == "localhost" || host == "127.0.0.1") && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &Origins, origin: &'static str) -> bool {
        origins.allows(&HeaderValue::from_static(origin))
    }

    #[test]
    fn by_default_only_origins_on_this_machine_are_allowed() {
        let local = Origins::new(None, true);
        for good in ["http://localhost", "http://localhost:5173", "http://127.0.0.1:8080"] {
            assert!(allowed(&local, good), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://localhost",
            "http://localhost.evil.example",
            "http://evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "http://localhost:1@evil.example",
        ] {
            assert!(!allowed(&local, bad), "{bad}");
        }
        assert!(!allowed(&Origins::new(None, false), "http://localhost"));
    }

    #[test]
    fn listed_origins_match_exactly() {
        let listed = Origins::new(Some(&["https://chat.example".into(), String::new()]), true);
        assert!(allowed(&listed, "https://chat.example"));
        for same in ["https://chat.example:443", "https://Chat.Example"] {
            assert!(allowed(&listed, same), "{same}");
        }
        for bad in [
            "http://localhost",
            "https://chat.example:444",
            "http://chat.example:443",
            "https://chat.example.evil",
            "null",
            "",
        ] {
            assert!(!allowed(&listed, bad), "{bad}");
        }
        let odd = Origins::new(Some(&["null".into(), "file://".into(), "capacitor://localhost".into()]), false);
        for good in ["null", "file://", "capacitor://localhost"] {
            assert!(allowed(&odd, good), "{good}");
        }
        assert!(!allowed(&odd, "file:///home"));
        assert!(allowed(&Origins::new(Some(&["*".into()]), false), "https://any.example"));
    }

    #[test]
    fn a_page_of_the_same_host_is_recognised() {
        let own = |origin: &'static str, host: &str| {
            let headers = HeaderMap::from_iter([(axum::http::header::HOST, HeaderValue::from_str(host).unwrap())]);
            is_own(&HeaderValue::from_static(origin), &Uri::from_static("/"), &headers)
        };
        for (origin, host) in [
            ("https://chat.example", "chat.example"),
            ("https://chat.example:443", "chat.example"),
            ("https://chat.example", "chat.example:443"),
            ("http://CHAT.example:80", "chat.example"),
            ("http://chat.example:8080", "chat.example:8080"),
            ("http://[::1]:80", "[::1]"),
        ] {
            assert!(own(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://chat.example:80", "chat.example"),
            ("https://evil.example", "chat.example"),
            ("http://chat.example:8080", "chat.example"),
            ("null", "null"),
            ("file://", "chat.example"),
        ] {
            assert!(!own(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn the_log_of_rejected_origins_is_rate_limited() {
        let origins = Origins::new(Some(&[]), false);
        for n in 0..100 {
            origins.log(&HeaderValue::from_str(&format!("https://{n}.example/{}", "x".repeat(200))).unwrap());
            origins.log(&HeaderValue::from_static("https://evil.example"));
        }
        let logged = origins.0.logged.lock();
        assert_eq!(logged.len(), MOST_LOGGED);
        assert!(logged.iter().all(|(origin, _)| origin.len() <= MAX_LOGGED));
    }
}

//! Which web pages may call this server.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::REQUEST_ID;

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Another name of `clientMessageId`.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Request headers that pages may set.
const TAKEN: [HeaderName; 10] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    REQUEST_ID,
    RANGE,
    IF_RANGE,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The allowed origins; clones share them.
#[derive(Debug, Clone)]
pub struct Origins(Arc<Rule>);

#[derive(Debug)]
enum Rule {
    Any,
    Listed(Vec<String>),
    Localhost,
}

impl Origins {
    /// The origins of the setting. Without the setting: pages of this machine while listening on loopback, otherwise
    /// none.
    pub fn new(setting: Option<&[String]>, on_loopback: bool) -> Self {
        Self(Arc::new(match setting {
            Some(list) if list.iter().any(|origin| origin == "*") => Rule::Any,
            Some(list) => Rule::Listed(list.to_vec()),
            None if on_loopback => Rule::Localhost,
            None => Rule::Listed(Vec::new()),
        }))
    }

    /// Whether a page of this origin may call this server.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        match &*self.0 {
            Rule::Any => true,
            Rule::Listed(list) => !origin.is_empty() && list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Rule::Localhost => is_localhost(origin),
        }
    }

    /// The layer that answers preflight requests and sets the CORS headers.
    pub(super) fn layer(&self) -> CorsLayer {
        let origins = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| origins.allows(origin)))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(TAKEN)
            .expose_headers([LOCATION, RETRY_AFTER, REQUEST_ID, CONTENT_DISPOSITION, CONTENT_RANGE, ACCEPT_RANGES, ETAG])
            .max_age(MAX_AGE)
    }
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
    fn by_default_only_this_machine_is_allowed() {
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
    fn a_list_is_exact() {
        let listed = Origins::new(Some(&["https://chat.example".into(), String::new()]), true);
        assert!(allowed(&listed, "https://chat.example"));
        for bad in ["http://localhost", "https://chat.example:444", "https://chat.example.evil", "null", ""] {
            assert!(!allowed(&listed, bad), "{bad}");
        }
        assert!(allowed(&Origins::new(Some(&["*".into()]), false), "https://any.example"));
    }
}

//! Middleware for all requests: request ids, the access log, CORS, common response headers, and panics.

pub mod body;
pub mod cors;
pub mod hosts;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use confab_common::Error;
use confab_common::telemetry::trace::{Kind, Span};
use confab_socketio::budget::{Held, Holder, Share};
use confab_socketio::net::Tally;
use futures::FutureExt;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics;
use crate::problem::{self, Problem};
use cors::Origins;
use hosts::Hosts;

/// The request id. A valid id from the client or a proxy is kept; an id in the form of the gateway's own ids gets a
/// prefix.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The path of the liveness probe. Load balancers request it often, with the gateway's address as the Host.
pub const LIVEZ: &str = "/livez";
/// The path of Socket.IO.
const REALTIME: &str = "/socket.io";

/// Prefix for a client's request id that has the form of the gateway's own ids.
const OF_CLIENT: &str = "client-";
/// Longest request id that the gateway accepts from a client, in bytes.
const MAX_REQUEST_ID: usize = 64;

/// The edge's state of a request; stored in the request's extensions.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    id: String,
    user: OnceLock<Uuid>,
    /// `None` for a request that did not arrive over a connection, as in tests.
    tally: Option<Tally>,
}

impl Context {
    fn of(request: &Request) -> Self {
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_sane(id));
        let id = match given {
            Some(id) if is_like_ours(id) => format!("{OF_CLIENT}{id}"),
            Some(id) => id.to_owned(),
            None => Uuid::now_v7().to_string(),
        };
        Self(Arc::new(Inner { id, user: OnceLock::new(), tally: request.extensions().get().cloned() }))
    }

    /// The id of the request.
    pub fn request_id(&self) -> &str {
        &self.0.id
    }

    /// Records the caller, for the access log and for the memory limits.
    pub fn called_by(&self, user: Uuid) {
        let _ = self.0.user.set(user);
    }

    fn holder(&self, tally: &Tally) -> Holder {
        self.0.user.get().map_or(tally.address(), |user| Holder::Owner(*user))
    }

    /// Starts to count the bytes that are buffered for this request.
    pub fn hold(&self) -> Option<Held> {
        let tally = self.0.tally.as_ref()?;
        Some(tally.hold(self.holder(tally)))
    }

    /// The share in which the request's bytes are counted.
    pub fn share(&self) -> Option<Arc<Share>> {
        let tally = self.0.tally.as_ref()?;
        Some(tally.budget().share(self.holder(tally)))
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_like_ours(id: &str) -> bool {
    id.len() == uuid::fmt::Hyphenated::LENGTH && Uuid::try_parse(id).is_ok()
}

/// Adds the edge's middleware to all routes.
pub fn around(routes: Router, origins: Origins, hosts: Hosts, trust: TraceTrust) -> Router {
    let observe = from_fn_with_state(trust, observe);
    routes.layer(from_fn_with_state(hosts, hosts::only)).layer(observe).layer(origins.layer())
}

/// Whether the gateway trusts the `traceparent` of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceTrust {
    /// Trusted, because a proxy sets it. The request continues that trace, sampled or not.
    All,
    /// Not trusted: each request begins a new trace that links to the client's trace.
    LinkOnly,
}

async fn observe(State(trust): State<TraceTrust>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let context = Context::of(&request);
    request.extensions_mut().insert(context.clone());
    // Copied, because the URI keeps the buffer of the whole head alive.
    let (method, path) = (request.method().clone(), Box::<str>::from(request.uri().path()));
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = span(&request, route.as_ref(), &context.0.id, trust);
    let had_token = problem::has_token(request.headers());

    let answer = span.instrument(AssertUnwindSafe(next.run(request)).catch_unwind()).await;
    let answer = answer.unwrap_or_else(|_| Problem(Error::internal("a handler panicked")).into_response());
    let problem = answer.extensions().get::<Problem>();
    if let Some(Problem(error)) = problem {
        span.in_scope(|| error.log_cause());
    }
    let code = problem.map(|problem| problem.0.code.as_str());
    let mut answer = problem::render(answer, &context.0.id, had_token);
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&context.0.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(user) = context.0.user.get() {
        answer.extensions_mut().insert(Holder::Owner(*user));
    }

    let took = started.elapsed();
    metrics::request(route.as_ref(), &method, answer.status(), took);
    // The path without the query, which may hold secrets.
    let (status, ms) = (answer.status().as_u16(), took.as_micros() as f64 / 1000.0);
    let path = printable(&path);
    let user = context.0.user.get().map(tracing::field::display);
    if is_frequent(&path) {
        tracing::debug!(%method, %path, status, code, ms, request_id = context.0.id, user, "request");
    } else {
        span.set("http.response.status_code", || i64::from(status));
        if status >= 500 {
            span.fail("server_error");
        }
        span.in_scope(|| tracing::info!(%method, %path, status, code, ms, request_id = context.0.id, user, "request"));
    }
    answer
}

/// The path for the log. A path may contain any UTF-8, and a log in the text format would keep the control characters
/// in it, which a terminal obeys.
fn printable(path: &str) -> Cow<'_, str> {
    if path.is_ascii() { path.into() } else { path.escape_debug().to_string().into() }
}

/// Whether this path receives too many requests to log each at `info` and to trace each.
fn is_frequent(path: &str) -> bool {
    let is_realtime = path.strip_prefix(REALTIME).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_realtime || path == LIVEZ
}

/// The span of a request, named after its route, because paths hold arbitrary values. Socket.IO requests have no span;
/// each event has one instead.
fn span(request: &Request, route: Option<&MatchedPath>, id: &str, trust: TraceTrust) -> Span {
    if is_frequent(request.uri().path()) {
        return Span::default();
    }
    let span = match trust {
        TraceTrust::All => Span::entry(Kind::Server, "request", request.headers()),
        TraceTrust::LinkOnly => Span::linked_root(Kind::Server, "request", request.headers()),
    };
    // Clients can send methods that do not exist.
    let is_known = |method: &Method| method.is_idempotent() || [Method::POST, Method::PATCH].contains(method);
    let method = Some(request.method()).filter(|method| is_known(method)).map_or("_OTHER", Method::as_str);
    let route = route.map_or("unknown", MatchedPath::as_str);
    span.rename(|| format!("{method} {route}"));
    span.set("http.request.method", || method.to_owned());
    span.set("http.route", || route.to_owned());
    span.set("confab.request.id", || id.to_owned());
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::send;
    use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE};
    use axum::routing::get;

    fn routes() -> Router {
        let broken = get(|| async { panic!("on purpose") as &str });
        around(
            Router::new().route("/broken", broken).fallback(problem::unknown_route),
            Origins::new(None, true),
            Hosts::new(&[], true),
            TraceTrust::LinkOnly,
        )
    }

    #[tokio::test]
    async fn the_request_id_is_the_same_in_header_and_body() {
        let request = || Request::get("/x").header("Host", "localhost");
        let answer = send(&routes(), request().header("X-Request-Id", "abc-1_Z")).await;
        assert_eq!(
            (&answer.headers[REQUEST_ID], &answer.json["requestId"]),
            (&"abc-1_Z".parse().unwrap(), &"abc-1_Z".into())
        );
        // A client cannot send an id that looks like the gateway's own.
        for like_ours in [Uuid::now_v7().to_string(), Uuid::new_v4().to_string().to_uppercase()] {
            let answer = send(&routes(), request().header("X-Request-Id", &like_ours)).await;
            assert_eq!(answer.headers[REQUEST_ID], format!("client-{like_ours}"));
            assert_eq!(answer.json["requestId"], format!("client-{like_ours}"));
        }
        for bad in ["", "a b", "<script>", &"a".repeat(65)] {
            let answer = send(&routes(), request().header("X-Request-Id", bad)).await;
            let id = answer.headers[REQUEST_ID].to_str().unwrap();
            assert!(id.parse::<Uuid>().is_ok() && answer.json["requestId"] == id, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_an_internal_error_without_details() {
        let answer = send(
            &routes(),
            Request::get("/broken").header("Host", "localhost").header("Origin", "http://localhost:5173"),
        )
        .await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (500, Some("internal")));
        assert!(!answer.json.to_string().contains("on purpose"));
        assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:5173");
    }

    #[test]
    fn a_logged_path_has_no_control_characters() {
        for (path, logged) in [
            ("/api/rooms/%1b[31m", "/api/rooms/%1b[31m"),
            ("/tea/\u{9b}31m", "/tea/\\u{9b}31m"),
            ("/tea/\u{202e}txt", "/tea/\\u{202e}txt"),
            ("/чай", "/чай"),
        ] {
            assert_eq!(printable(path), logged);
        }
    }

    #[tokio::test]
    async fn a_rejected_host_names_the_setting() {
        let answer = send(&routes(), Request::get("/x").header("Host", "evil.example")).await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (400, Some("invalid_request")));
        assert!(answer.json["detail"].as_str().unwrap().contains("CONFAB_PUBLIC_HOSTS"));
        assert_eq!(answer.json["requestId"], answer.headers[REQUEST_ID].to_str().unwrap());
    }
}

//! The HTTP/1.1 server. It has its own accept loop, because connections must be bounded, have time limits, and close in
//! order.

mod arriving;
mod bodies;
pub mod places;
mod refusal;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::listen::Listener;
use confab_common::metrics::LIMITS;
use confab_common::{Code, Error};
use confab_socketio::budget::{Budget, Held, Holder};
use confab_socketio::net::{ClientAddress, ConnectionPermit, Shares, Tally, wire};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use uapi::c::{IPPROTO_TCP, TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT, c_int};
use uuid::Uuid;

use self::arriving::Timeouts;
use self::bodies::{AnswerBody, RequestBody};
use crate::config::GatewayConfig;
use crate::problem::{self, Problem};

pub use stream::Stream;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Largest head of a request, in bytes; also the largest part of a body that hyper reads ahead.
const MAX_HEAD: usize = 32 * 1024;
/// After the last response, the server discards received data, so that the client can read the response. It stops when
/// no data arrives for this long.
const DRAIN_LINGER: Duration = Duration::from_secs(2);
/// The limit for the whole discard.
const DRAIN_LINGER_LIMIT: Duration = Duration::from_secs(10);
/// After shutdown: how long a new connection may take to send its first request.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// Maximum number of rejected connections that the server answers at the same time; it closes others without an answer.
const MAX_REFUSED: usize = 16;
/// A proxy reads a body of up to this many bytes at once, so the client's share is released with the head of the
/// response.
const SHORT_BODY: u64 = 64 * 1024;
/// The operating system queues about this many unsent bytes for a connection. The rest stays in this process, which
/// counts it.
const MAX_UNSENT: c_int = 16 * 1024;
/// The operating system ends a connection whose peer acknowledges no data, or accepts none, for this many milliseconds.
/// This includes connections that this process has closed.
const UNTAKEN_WITHIN_MS: c_int = 60_000;
/// Pause before the next accept when the process has no free file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Admits connections and requests.
#[derive(Clone)]
pub struct Admission {
    /// Maximum number of connections.
    pub places: usize,
    /// How long a connection may be idle between requests.
    pub idle: Duration,
    /// The value of the header `Keep-Alive`, which contains `idle`.
    pub keep_alive: HeaderValue,
    pub trusted: Arc<[IpNet]>,
    /// The bound for connections of one address; `None`: no bound.
    pub shares: Option<Arc<Shares>>,
    /// The memory limit for all clients.
    pub budget: Arc<Budget>,
}

impl Admission {
    /// Admits this many connections of clients.
    pub fn of_clients(config: &GatewayConfig, places: usize, budget: Arc<Budget>) -> Self {
        let trusted = config.trusted_proxies.iter().flatten().copied().collect();
        Self {
            places,
            idle: config.idle_timeout,
            keep_alive: keep_alive(config.idle_timeout),
            trusted,
            shares: Some(Shares::of(places)),
            budget,
        }
    }

    /// Admits this many connections of other gateways. The server trusts the client addresses in their requests.
    pub fn of_gateways(config: &GatewayConfig, places: usize, budget: Arc<Budget>) -> Self {
        let trusted = ["0.0.0.0/0", "::/0"].iter().filter_map(|all| all.parse().ok()).collect();
        Self {
            places,
            idle: config.idle_timeout,
            keep_alive: keep_alive(config.idle_timeout),
            trusted,
            shares: None,
            budget,
        }
    }

    /// The permit for a connection; `None` when its address has reached its share.
    fn admit(&self, peer: SocketAddr, permit: OwnedSemaphorePermit) -> Option<ConnectionPermit> {
        let address = peer.ip().to_canonical();
        let is_proxy = self.trusted.iter().any(|network| network.contains(&address));
        let share = match &self.shares {
            Some(shares) if !is_proxy => Some(shares.take(address.into())?),
            _ => None,
        };
        Some(ConnectionPermit::new(permit, share))
    }

    /// The permit for a request; `None` when it comes through a proxy and its client's address has reached its share.
    fn admit_request(&self, permit: &ConnectionPermit, address: ClientAddress) -> Option<ConnectionPermit> {
        let share = match &self.shares {
            Some(shares) if permit.is_of_proxy() => Some(Arc::new(shares.take(address)?)),
            _ => None,
        };
        Some(permit.for_request(share))
    }
}

/// Extracts the TCP stream of an upgraded connection of this server, with the bytes that were read ahead.
pub fn into_tcp(upgraded: hyper::upgrade::Upgraded) -> Option<(TcpStream, axum::body::Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf))
}

fn keep_alive(idle: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("timeout={}", idle.as_secs())).unwrap_or(HeaderValue::from_static("timeout=0"))
}

/// How a server shuts down.
#[derive(Clone)]
pub struct ShutdownPlan {
    /// Once cancelled, each connection ends with its next response, so that clients use other gateways.
    pub leaving: CancellationToken,
    /// Once cancelled, the server accepts no connection.
    pub shutdown: CancellationToken,
    /// How long requests in progress may take after `shutdown`.
    pub within: Duration,
}

/// Serves until shutdown, then closes idle connections and finishes the requests in progress.
pub async fn serve(listener: TcpListener, app: Router, plan: &ShutdownPlan, admission: &Admission) {
    let places = Arc::new(Semaphore::new(admission.places.min(Semaphore::MAX_PERMITS)));
    let refused = Arc::new(Semaphore::new(MAX_REFUSED));
    let connections = TaskTracker::new();
    let serve = |(stream, peer, permit): (TcpStream, _, _)| match admission.admit(peer, permit) {
        Some(permit) => {
            connections.spawn(serve_connection((stream, peer), app.clone(), permit, admission.clone(), plan.clone()));
        }
        None => refuse(stream, &refused),
    };
    let served = async {
        accept_all(Listener::new(listener, plan.shutdown.clone()), &places, serve).await;
        connections.close();
        connections.wait().await;
    };
    let too_late = async {
        plan.shutdown.cancelled().await;
        tokio::time::sleep(plan.within).await;
    };
    tokio::select! {
        () = served => {}
        () = too_late => {
            tracing::warn!(left = connections.len(), "closing connections that are in use after the drain time");
        }
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// Passes accepted connections to `serve` until the server shuts down.
async fn accept_all(listener: Listener, places: &Arc<Semaphore>, serve: impl Fn(Accepted)) {
    let accepting = async {
        while let Some(accepted) = accept(&listener, places).await {
            serve(accepted);
        }
    };
    tokio::join!(accepting, listener.close_at_shutdown());
}

/// Returns the next connection when a permit is free. Until then, connections wait in the queue of the operating
/// system. `None` after the last one.
async fn accept(listener: &Listener, places: &Arc<Semaphore>) -> Option<Accepted> {
    loop {
        if places.available_permits() == 0 {
            LIMITS.hit("connections");
        }
        let permit = places.clone().acquire_owned().await.ok()?;
        match listener.accept().await? {
            Ok((stream, peer)) => return Some((stream, peer, permit)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn too_many() -> Response {
    LIMITS.hit("connections_per_address");
    let error = Error::new(Code::Unavailable, "too many connections from this address; close some, or try again later");
    let mut answer = problem::render(Problem(error).into_response(), &Uuid::now_v7().to_string(), false);
    answer.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
    answer
}

/// Rejects a connection of an address that has reached its share. At most [`MAX_REFUSED`] receive an answer at the same
/// time.
fn refuse(stream: TcpStream, refused: &Arc<Semaphore>) {
    let Ok(permit) = refused.clone().try_acquire_owned() else { return LIMITS.hit("connections_per_address") };
    tokio::spawn(async move {
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(too_many()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DRAIN_LINGER)
            .serve_connection(TokioIo::new(stream), service);
        let _ = timeout(DRAIN_LINGER, connection).await;
        drop(permit);
    });
}

/// Serves one connection until it ends or is upgraded. A separate task serves an upgraded connection.
async fn serve_connection(
    (stream, peer): (TcpStream, SocketAddr),
    app: Router,
    permit: ConnectionPermit,
    admission: Admission,
    plan: ShutdownPlan,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    for (option, value) in [(TCP_NOTSENT_LOWAT, MAX_UNSENT), (TCP_USER_TIMEOUT, UNTAKEN_WITHIN_MS)] {
        if let Err(error) = uapi::setsockopt(stream.as_raw_fd(), IPPROTO_TCP, option, &value) {
            tracing::debug!(%error, option, "cannot limit the data that the operating system queues for a connection");
        }
    }
    let holder = (!permit.is_of_proxy()).then(|| Holder::Address(peer.ip().into()));
    let hold =
        |wire: &Arc<_>| holder.map(|holder| Held::of(admission.budget.clone(), holder, Arc::downgrade(wire) as _));
    let places = (!permit.is_of_proxy()).then(|| (permit.semaphore().clone(), admission.places / 2));
    let stream = Stream::new(stream, Timeouts { idle: admission.idle, places }, hold);
    let (leaving, wire) = (plan.leaving, stream.wire().clone());
    let [asked, cut] = [wire.clone(), wire.clone()];
    let service = service_fn(move |request: Request<Incoming>| {
        let own = wire.next_answer(!request.body().is_end_stream());
        answer(app.clone(), (&permit, peer), &admission, own, leaving.clone(), request)
    });
    let mut connection = http1::Builder::new()
        // `Stream` has the time limits.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let served = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = plan.shutdown.cancelled() => {
                // On shutdown, hyper drops a request that is arriving on a new connection.
                if asked.requests.begun() == 0 && let Ok(ended) = timeout(FIRST_WITHIN, &mut connection).await {
                    return ended;
                }
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        },
        // The request in progress is dropped with the connection.
        () = cut.until_cut() => return,
    }
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

fn answer(
    mut app: Router,
    (permit, peer): (&ConnectionPermit, SocketAddr),
    admission: &Admission,
    (own, head): (wire::Answer, usize),
    leaving: CancellationToken,
    request: Request<Incoming>,
) -> impl Future<Output = Result<axum::http::Response<AnswerBody>, Infallible>> + use<> {
    let mut request = request.map(|incoming| {
        if incoming.is_end_stream() {
            Body::empty()
        } else {
            Body::new(RequestBody { incoming, wire: own.wire().clone() })
        }
    });
    let address = ClientAddress::of(peer.ip(), request.headers(), &admission.trusted);
    request.extensions_mut().insert(address);
    let wire = own.wire().clone();
    let tally = Tally::new(admission.budget.clone(), address, own, head.min(MAX_HEAD));
    request.extensions_mut().insert(tally.clone());
    let permit = admission.admit_request(permit, address);
    let keep_alive = admission.keep_alive.clone();
    async move {
        let Some(permit) = permit else { return Ok(too_many().map(|body| AnswerBody::new(body, wire))) };
        request.extensions_mut().insert(permit.clone());
        let mut answer = app.call(request).await?;
        if permit.has_share_of_request() && answer.body().size_hint().exact().is_none_or(|bytes| bytes > SHORT_BODY) {
            // The proxy reads the body as fast as its client, which holds its share until the end of the body.
            answer = answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &permit;
                    frame
                }))
            });
        }
        answer = tally.count(answer);
        if leaving.is_cancelled() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
        }
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS && !answer.headers().contains_key(CONNECTION) {
            answer.headers_mut().insert(KEEP_ALIVE, keep_alive);
        }
        Ok(answer.map(|body| AnswerBody::new(body, wire)))
    }
}

/// Closes the sending side and discards received data. A close with unread data would reset the connection, and the
/// client could lose the response.
async fn linger(mut stream: Stream) {
    let _ = stream.shutdown().await;
    // On the heap, so that the task of every connection stays small.
    let mut discarded = vec![0; 16 * 1024];
    let discard =
        async { while matches!(timeout(DRAIN_LINGER, stream.tcp().read(&mut discarded)).await, Ok(Ok(1..))) {} };
    let _ = timeout(DRAIN_LINGER_LIMIT, discard).await;
    stream.abandon();
}

#[cfg(test)]
#[path = "server/tests.rs"]
pub(crate) mod tests;

//! The HTTP/1.1 server: our own accept loop, because connections are to be bounded, timed and ended in good order.

mod stream;
pub mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use confab_common::metrics::LIMITS;
use futures::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
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

use crate::address::ClientAddress;
use crate::config::GatewayConfig;

pub use stream::Stream;

/// How long a request's head may take to arrive, and a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes; also the most that is read ahead of a body.
const MAX_HEAD: usize = 32 * 1024;
/// How long what still comes is discarded after the last answer, so that the client gets to read it.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection that has brought nothing yet may still bring its first request after shutdown.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait when the system has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A connection's place among the most that there may be. It is among each request's extensions; whoever takes an
/// upgrade keeps it for as long as the connection lives.
#[derive(Clone)]
pub struct Place {
    peer: SocketAddr,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// When a server is to end.
#[derive(Clone)]
pub struct Ending {
    /// From then on connections end with their next answer, so that whoever keeps them for further requests goes elsewhere.
    pub leaving: CancellationToken,
    /// From then on none is accepted.
    pub shutdown: CancellationToken,
    /// How long those under way may then still take.
    pub within: Duration,
}

/// Serves until shutdown, then ends idle connections and finishes the requests under way.
pub async fn serve(listener: TcpListener, app: Router, ending: &Ending, config: &GatewayConfig) {
    let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let trusted: Arc<[IpNet]> = config.trusted_proxies.clone().into();
    let serve = |(stream, place)| _ = connections.spawn(serve_connection(stream, app.clone(), place, trusted.clone(), ending.clone()));
    while let Some(accepted) = ending.shutdown.run_until_cancelled(accept(&listener, &places)).await {
        serve(accepted);
    }
    // Who is in the system's queue has perhaps sent a request already.
    while let Some(accepted) = accept(&listener, &places).now_or_never() {
        serve(accepted);
    }
    drop(listener);
    connections.close();
    if timeout(ending.within, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections that take too long are cut");
    }
}

/// The next connection, once there is a place for it; until then it waits in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Place) {
    loop {
        if places.available_permits() == 0 {
            LIMITS.hit("connections");
        }
        let Ok(permit) = places.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, Place { peer, _permit: Arc::new(permit) }),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One connection, until it ends or is upgraded: what takes the upgrade has a task of its own.
async fn serve_connection(stream: TcpStream, app: Router, place: Place, trusted: Arc<[IpNet]>, ending: Ending) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let stream = Stream::new(stream);
    let (leaving, wire) = (ending.leaving, stream.wire().clone());
    let asked = wire.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(wire.next_answer());
        answer(app.clone(), place.clone(), &trusted, leaving.clone(), request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let served = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = ending.shutdown.cancelled() => {
                // Asked to end, hyper would drop a request that is just arriving on a new connection.
                if asked.is_new() && let Ok(ended) = timeout(FIRST_WITHIN, &mut connection).await {
                    return ended;
                }
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection ended");
    }
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

fn answer(
    mut app: Router,
    place: Place,
    trusted: &[IpNet],
    leaving: CancellationToken,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let address = ClientAddress::of(place.peer.ip(), request.headers(), trusted);
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(place);
    async move {
        let mut answer = app.call(request).await?;
        if leaving.is_cancelled() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
        }
        Ok(answer)
    }
}

/// Ends our side and discards what still comes: closing with bytes unread would reset the connection, and the client
/// might never see the answer.
async fn linger(mut stream: Stream) {
    let _ = stream.shutdown().await;
    let mut discarded = [0; 1024];
    let _ = timeout(LINGER, async { while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {} }).await;
}

#[cfg(test)]
#[path = "server/tests.rs"]
pub(crate) mod tests;

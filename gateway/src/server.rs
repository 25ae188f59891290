//! The HTTP/1.1 server: our own accept loop, because connections are to be bounded, timed and ended in good order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use confab_common::process::Process;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::config::GatewayConfig;

/// How long a request's head may take to arrive, and a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes; also the most that is read ahead of a body.
const MAX_HEAD: usize = 32 * 1024;
/// How long what still comes is discarded after the last answer, so that the client gets to read it.
const LINGER: Duration = Duration::from_secs(2);
/// How long to wait when the system has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A connection's place among the most that there may be. It is among each request's extensions; whoever takes an
/// upgrade keeps it for as long as the connection lives.
#[derive(Clone)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
    ended: CancellationToken,
}

impl Place {
    /// Ends the connection at once: its client takes nothing any more.
    pub fn hang_up(&self) {
        self.ended.cancel();
    }
}

/// Serves until shutdown, then ends idle connections and finishes the requests under way.
pub async fn serve(listener: TcpListener, app: Router, process: &Process, config: &GatewayConfig) {
    let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = process.shutdown.run_until_cancelled(accept(&listener, &places)).await {
        connections.spawn(serve_connection(stream, app.clone(), place, process.shutdown.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is a place for it; until then it waits in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Place) {
    loop {
        let Ok(permit) = places.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, Place { _permit: Arc::new(permit), ended: CancellationToken::new() }),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One connection, until it ends or is upgraded: what takes the upgrade has a task of its own.
async fn serve_connection(stream: TcpStream, app: Router, place: Place, shutdown: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let hung_up = place.ended.clone();
    let service = service_fn(move |request| answer(app.clone(), place.clone(), request));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let served = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = shutdown.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    let Some(ended) = hung_up.run_until_cancelled(served).await else { return };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

async fn answer(mut app: Router, place: Place, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    request.extensions_mut().insert(place);
    app.call(request).await
}

/// Ends our side and discards what still comes: closing with bytes unread would reset the connection, and the client
/// might never see the answer.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut discarded = [0; 1024];
    let _ = tokio::time::timeout(LINGER, async { while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {} }).await;
}

#[cfg(test)]
#[path = "server/tests.rs"]
pub(crate) mod tests;

//! The admin port: `/livez` (never checks a dependency), `/readyz` (warm and not draining), `/metrics`.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::config::CommonConfig;
use crate::metrics;
use crate::readiness::Readiness;

/// Connections open at once; a further connection replaces the oldest.
const MAX_CONNECTIONS: usize = 16;
/// Time limit for the head of a request, and for an idle connection between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Pause before the next accept after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin port until the process ends, also while it drains.
///
/// # Errors
/// When the address cannot be bound.
pub async fn spawn(config: &CommonConfig, readiness: Readiness) -> anyhow::Result<()> {
    let address = config.admin_listen;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for /readyz and /metrics: is another Confab running? If not, set CONFAB_ADMIN_LISTEN")
    })?;
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move || std::future::ready(readyz(&readiness))))
        .route("/metrics", get(exposition));
    #[cfg(feature = "failpoints")]
    let router = router.merge(crate::failpoint::routes());
    tokio::spawn(serve(listener, router));
    Ok(())
}

/// Accepts without end. Probes and scrapes take milliseconds, so a connection above the limit replaces the oldest one:
/// a client that keeps many connections open cannot lock probes out.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection at the admin port");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection: &AbortOnDropHandle<()>| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
            // Its descriptor is free before the next accept: a busy runtime may drop an aborted task much later.
            let _ = oldest.await;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        connections.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the admin port ended");
            }
        })));
    }
}

/// Collecting the metrics of a process with thousands of sockets takes milliseconds, so it runs on a blocking thread.
async fn exposition() -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(metrics::render).await.unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn readyz(readiness: &Readiness) -> (StatusCode, String) {
    let notes = readiness.notes();
    match readiness.missing() {
        None => (StatusCode::OK, format!("ready{notes}\n")),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}{notes}\n")),
    }
}

#[cfg(test)]
mod tests;

//! The admin port: `/livez` (never checks a dependency), `/readyz` (warm and not draining), `/metrics`.

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::CommonConfig;
use crate::metrics;
use crate::process::{Process, Readiness};

/// Serves the admin port until the process ends, also while it drains.
///
/// # Errors
/// When the address cannot be bound.
pub async fn spawn(config: &CommonConfig, process: &Process) -> anyhow::Result<()> {
    let address = config.admin_listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for /readyz and /metrics; set CONFAB_ADMIN_LISTEN"))?;
    let readiness = process.readiness.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move || std::future::ready(readyz(&readiness))))
        .route("/metrics", get(exposition));
    #[cfg(feature = "failpoints")]
    let router = router.merge(crate::failpoint::routes());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Looking at a process with many sockets takes a while.
async fn exposition() -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(metrics::render).await.unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn readyz(readiness: &Readiness) -> (StatusCode, String) {
    match readiness.missing() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
    }
}

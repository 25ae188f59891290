//! The admin port: `/livez` (never checks a dependency), `/readyz` (warm and not draining), `/metrics`.

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::CommonConfig;
use crate::process::{Process, Readiness};
use crate::telemetry;

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
        .route("/metrics", get(|| async { telemetry::render_metrics() }));
    #[cfg(feature = "failpoints")]
    let router = router.merge(crate::failpoint::routes());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn readyz(readiness: &Readiness) -> (StatusCode, String) {
    match readiness.missing() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
    }
}

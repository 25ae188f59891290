//! A gRPC server whose health status follows readiness, with a graceful shutdown.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::middleware::from_fn;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::layer::layer_fn;
use tower::util::MapResponseLayer;

use super::traced::{Traced, log_cause};
use super::{CONNECTION_WINDOW, FRAME, MAX_STREAMS, STREAM_WINDOW, connection, measure, roles};
use crate::listen::Listener;
use crate::process::Process;

/// Serves `routes` and the gRPC health protocol on `listen` until shutdown, then finishes the calls in progress. Calls
/// that take longer than three quarters of the `drain` time are cut, so that the rest of the time remains for the steps
/// after the server. Calls of `routes` need a role; the health service answers every caller, for the whole server (the
/// empty service name), and follows `/readyz`.
///
/// # Errors
/// When the address may not be served without a certificate or cannot be bound, or serving fails.
pub async fn serve(process: &Process, listen: SocketAddr, drain: Duration, routes: Routes) -> anyhow::Result<()> {
    let security = process.security.clone();
    security.check_listener(listen)?;
    let socket = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut readiness = process.readiness.watch();
    tokio::spawn(async move {
        loop {
            let status =
                if *readiness.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
    security.log_listener(listen);
    let listener = Listener::new(socket, process.shutdown.clone());
    let connections = connection::accept(listener, connection::places(), security, process.shutdown.clone());
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .layer(layer_fn(Traced))
        .layer(MapResponseLayer::new(log_cause))
        .add_routes(routes.into_axum_router().layer(from_fn(roles::enforce)).layer(from_fn(measure::serve)).into())
        .add_service(health)
        // The stream of connections ends at shutdown; the server then notifies the open ones.
        .serve_with_incoming_shutdown(connections, pending());
    let too_late = async {
        process.shutdown.cancelled().await;
        sleep(drain.mul_f64(0.75)).await;
    };
    tokio::select! {
        ended = served => ended.context("serving gRPC"),
        () = too_late => {
            tracing::warn!("the drain time is nearly over; cutting the remaining calls");
            Ok(())
        }
    }
}

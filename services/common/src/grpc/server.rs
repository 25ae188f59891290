//! A gRPC server whose health status follows readiness, with a graceful shutdown.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::middleware::from_fn;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::layer::layer_fn;
use tower::util::MapResponseLayer;

use super::traced::{Traced, log_cause};
use super::{CONNECTION_WINDOW, FRAME, MAX_CONNECTION_AGE, MAX_STREAMS, STREAM_WINDOW, connection, measure, roles};
use crate::backoff::jitter;
use crate::error::{Code, Error};
use crate::listen::Listener;
use crate::process::Process;
use crate::standstill::PauseDetector;

/// Serves `routes` and the gRPC health protocol on `listen` until shutdown, then finishes the calls in progress. Calls
/// that take longer than three quarters of the `drain` time are cut, so that the rest of the time remains for the steps
/// after the server. Calls of `routes` need a role; the health service answers every caller, for the whole server (the
/// empty service name), and follows `/readyz`.
///
/// # Errors
/// When the address may not be served without a certificate or cannot be bound, or serving fails.
pub async fn serve(process: &Process, listen: SocketAddr, drain: Duration, routes: Routes) -> anyhow::Result<()> {
    serve_until_age(process, listen, drain, routes, with_jitter(MAX_CONNECTION_AGE)).await
}

/// Returns up to a tenth less, at random, so that the connections to replicas that started together do not end together.
fn with_jitter(age: Duration) -> Duration {
    age - jitter(age / 10)
}

/// As [`serve`]. A connection of this age accepts no further calls, and ends when its calls have ended.
async fn serve_until_age(
    process: &Process,
    listen: SocketAddr,
    drain: Duration,
    routes: Routes,
    age: Duration,
) -> anyhow::Result<()> {
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
        .max_connection_age(age)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .layer(layer_fn(Traced))
        .layer(MapResponseLayer::new(log_cause))
        .add_routes(admitted(routes.into_axum_router(), process.pauses.clone()).layer(from_fn(measure::serve)).into())
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

/// Adds the checks before each call: it may not have waited while this process stood still, because its caller may have
/// called another replica instead, and the caller needs the method's role.
fn admitted(routes: Router, pauses: Arc<PauseDetector>) -> Router {
    routes.layer(from_fn(move |call, next| {
        let is_outdated = pauses.is_paused();
        async move {
            if is_outdated {
                let detail = "this replica stood still while the call may have waited";
                return Status::from(Error::new(Code::Unavailable, detail)).into_http();
            }
            roles::enforce(call, next).await
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_util::task::AbortOnDropHandle;
    use tower::ServiceExt;

    use super::*;
    use crate::standstill;

    /// The start of an HTTP/2 connection, with an empty SETTINGS frame.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// The type of the frame that announces the end of a connection (RFC 9113, 6.8).
    const GOAWAY: u8 = 7;

    #[tokio::test]
    async fn a_connection_ends_at_its_age() {
        let process = Process::new();
        let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
        let age = Duration::from_millis(100);
        let serving = async move {
            serve_until_age(&process, address, Duration::from_secs(1), Routes::default(), age).await.unwrap();
        };
        let _serving = AbortOnDropHandle::new(tokio::spawn(serving));
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(2)).await,
            }
        };
        stream.write_all(PREFACE).await.unwrap();
        let announced = async {
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                if head[3] == GOAWAY {
                    return;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), announced).await.expect("the server announces the end");
    }

    #[tokio::test]
    async fn a_call_that_may_have_waited_during_a_pause_is_rejected() {
        let pauses = Arc::<PauseDetector>::default();
        pauses.observe();
        let routes = admitted(Router::new(), pauses.clone());
        let call = async || {
            let call = http::Request::post("/confab.room.v1.RoomService/SetMember").body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(call).await.unwrap();
            Status::from_header_map(answer.headers()).unwrap().code()
        };
        assert_eq!(call().await, tonic::Code::PermissionDenied);
        pauses.stand_still();
        assert_eq!(call().await, tonic::Code::Unavailable);
        assert!(pauses.resume(standstill::now()));
        assert_eq!(call().await, tonic::Code::PermissionDenied);
    }

    #[test]
    fn connections_do_not_end_together() {
        let ages = [(); 8].map(|()| with_jitter(MAX_CONNECTION_AGE));
        assert!(
            ages.iter().all(|age| (MAX_CONNECTION_AGE.mul_f64(0.9)..=MAX_CONNECTION_AGE).contains(age)),
            "{ages:?}"
        );
        assert!(ages.iter().any(|age| *age != ages[0]), "{ages:?}");
    }
}

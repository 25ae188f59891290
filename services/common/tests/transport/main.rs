//! One suite for every transport to a service, and for faults that only occur on a network.
#![allow(clippy::unwrap_used)]

mod calls;
mod leaving;
mod streams;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use confab_common::grpc::{self, Transport};
use confab_common::testing::eventually;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::Service;

/// Runs each test over both transports. The argument is whether the service is in this process.
macro_rules! both_ways {
    ($($name:ident),+ $(,)?) => {
        mod in_process { $(#[tokio::test] async fn $name() { super::$name(true).await; })+ }
        mod over_the_network { $(#[tokio::test] async fn $name() { super::$name(false).await; })+ }
    };
}
use both_ways;

/// A service on its own port. Dropping it ends the service like a crash, with all its connections.
struct Served {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve<S>(service: S) -> Served
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = Server::builder().add_service(service);
    let (bound, address) = oneshot::channel();
    runtime.spawn(async move {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let _ = bound.send(incoming.local_addr().expect("its address"));
        server.serve_with_incoming(incoming).await
    });
    Served { address: address.await.expect("a bound server"), runtime: Some(runtime) }
}

fn connect(served: &[&Served]) -> Transport {
    let urls = served.iter().map(|served| format!("http://{}", served.address)).collect::<Vec<_>>();
    grpc::connect(&urls.join(",")).expect("valid URLs")
}

/// Returns the transport to a service in this process or on a port, with the handle that keeps the service running.
async fn reach<S>(service: S, in_process: bool) -> (Transport, Option<Served>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    if in_process {
        return (grpc::in_process(service), None);
    }
    let served = serve(service).await;
    (connect(&[&served]), Some(served))
}

/// Longer than a busy machine stands still, so that only a hanging replica is slow.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(6);
/// Slightly less than the time for which a slow replica is avoided.
const AVOID_TIME: Duration = Duration::from_secs(4);

/// Calls until every replica has been called, because the first call to each replica takes longer.
async fn warm_up(call: impl AsyncFn(), all_asked: impl Fn() -> bool) {
    let calling = async {
        while !all_asked() {
            call().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), calling).await.expect("every replica must be called");
}

/// Makes ten calls. One call goes to the hanging replica, and no later call while that replica is avoided. `asked`
/// returns the number of calls that arrived at the hanging replica.
async fn one_attempt_is_lost(call: impl AsyncFn(), asked: impl Fn() -> u64) {
    let mut met = None;
    for _ in 0..10 {
        let (begun, before) = (Instant::now(), asked());
        call().await;
        if asked() > before {
            assert!(met.is_none_or(|met| begun - met > AVOID_TIME), "the hanging replica is called again");
            met = Some(Instant::now());
        }
    }
    assert!(met.is_some(), "the hanging replica was not called");
}

//! One suite for every transport to a service, and for faults that only occur on a network.
#![allow(clippy::unwrap_used)]

mod calls;
mod leaving;
mod streams;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use confab_common::grpc::{self, Role, Security, Transport};
use confab_common::process::Process;
use confab_common::testing::{Authority, eventually};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::Service;

/// How a test reaches its service.
#[derive(Clone, Copy)]
enum Way {
    InProcess,
    Network,
    Tls,
}

/// Runs each test over both transports.
macro_rules! both_ways {
    ($($name:ident),+ $(,)?) => {
        mod in_process { $(#[tokio::test] async fn $name() { super::$name(crate::Way::InProcess).await; })+ }
        mod over_the_network { $(#[tokio::test] async fn $name() { super::$name(crate::Way::Network).await; })+ }
    };
}
use both_ways;

/// Runs each test over both transports, and over the network with TLS.
macro_rules! all_ways {
    ($($name:ident),+ $(,)?) => {
        crate::both_ways!($($name),+);
        mod with_tls { $(#[tokio::test] async fn $name() { super::$name(crate::Way::Tls).await; })+ }
    };
}
use all_ways;

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

/// Returns the transport to a service, with the handle that keeps the service running.
async fn reach<S>(service: S, way: Way) -> (Transport, Option<Served>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    match way {
        Way::InProcess => (grpc::in_process(service), None),
        Way::Network => {
            let served = serve(service).await;
            (connect(&[&served]), Some(served))
        }
        Way::Tls => {
            let authority = Authority::new();
            let security = |names: &str| Security::open(&authority.calls(names), None).expect("certificates");
            let process = Process::with(security("DNS:message.confab"));
            let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            let address = address.expect("a free port");
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            let routes = Routes::new(service);
            runtime.spawn(async move { grpc::serve(&process, address, Duration::from_secs(30), routes).await });
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let url = format!("https://{address}");
            let transport = security("DNS:gateway.confab").connect(Role::Message, &url).expect("a valid URL");
            (transport, Some(Served { address, runtime: Some(runtime) }))
        }
    }
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

//! Unary calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confab_common::grpc::{self, Call, Transport, Uncertain};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::{ATTEMPT_LIMIT, Served, Way, both_ways, connect, eventually, one_attempt_is_lost, serve, warm_up};

/// A scripted gRPC service.
#[derive(Clone)]
pub(crate) struct Service {
    behaviour: Arc<Mutex<Behaviour>>,
    calls: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Behaviour {
    Answers,
    Hangs,
    Refuses(Code),
}

impl Service {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self { behaviour: Arc::new(Mutex::new(behaviour)), calls: Arc::default() }
    }

    /// Sets the behaviour.
    fn is(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn serve(&self) -> Served {
        serve(HealthServer::new(self.clone())).await
    }

    /// Serves on an existing socket until the handle is dropped.
    pub(crate) fn serve_on(&self, listener: TcpListener) -> AbortOnDropHandle<()> {
        let server = Server::builder().add_service(HealthServer::new(self.clone()));
        AbortOnDropHandle::new(tokio::spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap()
        }))
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Answers => Ok(Response::new(HealthCheckResponse { status: 1 })),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Refuses(code) => Err(Status::new(code, "as scripted")),
        }
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}

pub(crate) async fn check(transport: &Transport, call: Call) -> Result<(), Code> {
    let mut client = HealthClient::new(transport.clone());
    client.check(grpc::request(HealthCheckRequest::default(), call)).await.map(drop).map_err(|status| status.code())
}

const CALL: Call = Call::within(Duration::from_secs(30));
/// Bound on waits that would otherwise last as long as a call's deadline, or without end.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// Starts two replicas and the transport to them. Both have answered, and their counters start at zero.
async fn two() -> ([Service; 2], [Served; 2], Transport) {
    let services = [Service::new(Behaviour::Answers), Service::new(Behaviour::Answers)];
    let served = [services[0].serve().await, services[1].serve().await];
    let transport = connect(&[&served[0], &served[1]]);
    let call = async || assert_eq!(check(&transport, CALL).await, Ok(()));
    warm_up(call, || services.iter().all(|service| service.calls() > 0)).await;
    services.iter().for_each(|service| service.calls.store(0, Ordering::SeqCst));
    (services, served, transport)
}

async fn reach(service: &Service, way: Way) -> (Transport, Option<Served>) {
    crate::reach(HealthServer::new(service.clone()), way).await
}

async fn call_is_answered(way: Way) {
    let service = Service::new(Behaviour::Answers);
    let (transport, _served) = reach(&service, way).await;
    assert_eq!(check(&transport, CALL).await, Ok(()));
    assert_eq!(service.calls(), 1);
}

async fn rejection_arrives_unchanged(way: Way) {
    let service = Service::new(Behaviour::Refuses(Code::NotFound));
    let (transport, _served) = reach(&service, way).await;
    assert_eq!(check(&transport, CALL).await, Err(Code::NotFound));
    assert_eq!(service.calls(), 1);
}

async fn a_deadline_holds(way: Way) {
    let (transport, _served) = reach(&Service::new(Behaviour::Hangs), way).await;
    let answer = timeout(CALL_LIMIT, check(&transport, Call::within(Duration::from_millis(200)))).await;
    assert_eq!(answer.expect("must end in time"), Err(Code::DeadlineExceeded));
}

both_ways!(call_is_answered, rejection_arrives_unchanged, a_deadline_holds);

#[tokio::test]
async fn calls_are_spread_over_all_replicas() {
    let ([a, b], _served, transport) = two().await;
    for _ in 0..20 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    assert_eq!((a.calls(), b.calls()), (10, 10));
}

#[tokio::test]
async fn calls_with_one_key_prefer_one_replica() {
    let ([a, b], _served, transport) = two().await;
    for _ in 0..10 {
        assert_eq!(check(&transport, CALL.keyed(7)).await, Ok(()));
    }
    assert!([a.calls(), b.calls()].contains(&10));
}

#[tokio::test]
async fn unreachable_replica_is_avoided() {
    let (_, [serve_a, serve_b], transport) = two().await;
    drop(serve_a);
    for _ in 0..20 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    drop(serve_b);
    let gone = timeout(CALL_LIMIT, check(&transport, CALL)).await.expect("must end in time");
    assert!(matches!(gone, Err(Code::Unavailable | Code::DeadlineExceeded)), "{gone:?}");
    assert_eq!(check(&transport, CALL).await, Err(Code::Unavailable));
}

#[tokio::test]
async fn hanging_replica_costs_one_attempt() {
    let ([stuck, well], _served, transport) = two().await;
    stuck.is(Behaviour::Hangs);
    let call = async || assert_eq!(check(&transport, CALL.attempt(ATTEMPT_LIMIT)).await, Ok(()));
    one_attempt_is_lost(call, || stuck.calls()).await;
    assert_eq!(well.calls(), 10);
}

#[tokio::test]
async fn unavailable_replica_is_skipped() {
    let ([away, _], _served, transport) = two().await;
    away.is(Behaviour::Refuses(Code::Unavailable));
    for _ in 0..10 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
}

#[tokio::test]
async fn answer_after_an_attempt_without_one_is_marked() {
    let ([stuck, _well], _served, transport) = two().await;
    stuck.is(Behaviour::Hangs);
    let mut client = HealthClient::new(transport);
    // Regardless of the order, one of the first calls goes to the stuck replica.
    for _ in 0..2 {
        let before = stuck.calls();
        let call = grpc::request(HealthCheckRequest::default(), CALL.attempt(ATTEMPT_LIMIT));
        let answer = client.check(call).await.unwrap();
        assert_eq!(answer.extensions().get::<Uncertain>().is_some(), stuck.calls() > before);
    }
    assert!(stuck.calls() > 0);
}

#[tokio::test]
async fn call_that_may_be_done_is_never_unavailable() {
    let (stuck, away) = (Service::new(Behaviour::Hangs), Service::new(Behaviour::Refuses(Code::Unavailable)));
    let (serve_stuck, serve_away) = (stuck.serve().await, away.serve().await);
    let transport = connect(&[&serve_stuck, &serve_away]);
    let call = Call::within(Duration::from_secs(1)).attempt(Duration::from_millis(200));
    // Regardless of the order, one of the calls goes to the stuck replica.
    let answers = [check(&transport, call).await, check(&transport, call).await];
    assert!(answers.contains(&Err(Code::DeadlineExceeded)), "{answers:?}");
}

#[tokio::test]
async fn unknown_outcome_matters_unless_the_call_only_reads() {
    for (call, answer) in [(CALL, Code::DeadlineExceeded), (CALL.reading(), Code::Unavailable)] {
        let service = Service::new(Behaviour::Hangs);
        let served = service.serve().await;
        let transport = connect(&[&served]);
        let call = tokio::spawn(async move { check(&transport, call).await });
        eventually(|| service.calls() == 1).await;
        drop(served);
        assert_eq!(timeout(CALL_LIMIT, call).await.expect("must end in time").unwrap(), Err(answer));
    }
}

#[tokio::test]
async fn late_transport_answers_once_bound() {
    let (transport, binder) = grpc::late();
    assert_eq!(check(&transport, CALL).await, Err(Code::Unavailable));
    binder.bind(grpc::in_process(HealthServer::new(Service::new(Behaviour::Answers))));
    assert_eq!(check(&transport, CALL).await, Ok(()));
}

//! Calls: a request and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use confab_common::grpc::{self, Call, Transport};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::{Served, both_ways, connect, eventually, serve};

/// Any service will do; this one behaves as told.
#[derive(Clone)]
struct Service {
    behaviour: Behaviour,
    calls: Arc<AtomicU32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Answers,
    Hangs,
    Refuses(Code),
}

impl Service {
    fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, calls: Arc::default() }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn serve(&self) -> Served {
        serve(HealthServer::new(self.clone())).await
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.behaviour {
            Behaviour::Answers => Ok(Response::new(HealthCheckResponse { status: 1 })),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Refuses(code) => Err(Status::new(code, "as told")),
        }
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }
}

async fn check(transport: &Transport, call: Call) -> Result<(), Code> {
    let mut client = HealthClient::new(transport.clone());
    client.check(grpc::request(HealthCheckRequest::default(), call)).await.map(drop).map_err(|status| status.code())
}

const CALL: Call = Call::within(Duration::from_secs(5)).attempt(Duration::from_millis(300));

async fn reach(service: &Service, in_process: bool) -> (Transport, Option<Served>) {
    crate::reach(HealthServer::new(service.clone()), in_process).await
}

async fn a_call_is_answered(in_process: bool) {
    let service = Service::new(Behaviour::Answers);
    let (transport, _served) = reach(&service, in_process).await;
    assert_eq!(check(&transport, CALL).await, Ok(()));
    assert_eq!(service.calls(), 1);
}

async fn a_refusal_arrives_as_it_is(in_process: bool) {
    let service = Service::new(Behaviour::Refuses(Code::NotFound));
    let (transport, _served) = reach(&service, in_process).await;
    assert_eq!(check(&transport, CALL).await, Err(Code::NotFound));
    assert_eq!(service.calls(), 1);
}

async fn a_deadline_holds(in_process: bool) {
    let (transport, _served) = reach(&Service::new(Behaviour::Hangs), in_process).await;
    let begun = Instant::now();
    assert_eq!(check(&transport, Call::within(Duration::from_millis(200))).await, Err(Code::DeadlineExceeded));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

both_ways!(a_call_is_answered, a_refusal_arrives_as_it_is, a_deadline_holds);

#[tokio::test]
async fn calls_are_spread_over_all_replicas() {
    let (a, b) = (Service::new(Behaviour::Answers), Service::new(Behaviour::Answers));
    let (serve_a, serve_b) = (a.serve().await, b.serve().await);
    let transport = connect(&[&serve_a, &serve_b]);
    for _ in 0..20 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    assert_eq!((a.calls(), b.calls()), (10, 10));
}

#[tokio::test]
async fn calls_of_one_key_prefer_one_replica() {
    let (a, b) = (Service::new(Behaviour::Answers), Service::new(Behaviour::Answers));
    let (serve_a, serve_b) = (a.serve().await, b.serve().await);
    let transport = connect(&[&serve_a, &serve_b]);
    for _ in 0..10 {
        assert_eq!(check(&transport, CALL.keyed(7)).await, Ok(()));
    }
    assert!([a.calls(), b.calls()].contains(&10));
}

#[tokio::test]
async fn a_replica_that_is_gone_is_left() {
    let (a, b) = (Service::new(Behaviour::Answers), Service::new(Behaviour::Answers));
    let (serve_a, serve_b) = (a.serve().await, b.serve().await);
    let transport = connect(&[&serve_a, &serve_b]);
    for _ in 0..4 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    drop(serve_a);
    for _ in 0..20 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    drop(serve_b);
    let begun = Instant::now();
    let gone = check(&transport, CALL).await;
    assert!(matches!(gone, Err(Code::Unavailable | Code::DeadlineExceeded)), "{gone:?}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    assert_eq!(check(&transport, CALL).await, Err(Code::Unavailable));
}

#[tokio::test]
async fn a_replica_that_hangs_costs_one_attempt() {
    let (stuck, well) = (Service::new(Behaviour::Hangs), Service::new(Behaviour::Answers));
    let (serve_stuck, serve_well) = (stuck.serve().await, well.serve().await);
    let transport = connect(&[&serve_stuck, &serve_well]);
    for _ in 0..10 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
    // Once it has been slow, the others are preferred.
    assert_eq!((stuck.calls(), well.calls()), (1, 10));
}

#[tokio::test]
async fn a_replica_that_refuses_for_now_is_passed_over() {
    let (away, well) = (Service::new(Behaviour::Refuses(Code::Unavailable)), Service::new(Behaviour::Answers));
    let (serve_away, serve_well) = (away.serve().await, well.serve().await);
    let transport = connect(&[&serve_away, &serve_well]);
    for _ in 0..10 {
        assert_eq!(check(&transport, CALL).await, Ok(()));
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_called_unavailable() {
    let (stuck, away) = (Service::new(Behaviour::Hangs), Service::new(Behaviour::Refuses(Code::Unavailable)));
    let (serve_stuck, serve_away) = (stuck.serve().await, away.serve().await);
    let transport = connect(&[&serve_stuck, &serve_away]);
    let call = Call::within(Duration::from_secs(1)).attempt(Duration::from_millis(200));
    // Whichever is asked first, one of the calls meets the stuck one.
    let answers = [check(&transport, call).await, check(&transport, call).await];
    assert!(answers.contains(&Err(Code::DeadlineExceeded)), "{answers:?}");
}

#[tokio::test]
async fn what_became_of_a_call_matters_unless_it_only_reads() {
    for (call, answer) in [(CALL, Code::DeadlineExceeded), (CALL.reading(), Code::Unavailable)] {
        let service = Service::new(Behaviour::Hangs);
        let served = service.serve().await;
        let transport = connect(&[&served]);
        let call = tokio::spawn(async move { check(&transport, call.attempt(Duration::from_secs(5))).await });
        eventually(|| service.calls() == 1).await;
        drop(served);
        let begun = Instant::now();
        assert_eq!(call.await.unwrap(), Err(answer));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn a_late_transport_answers_once_it_is_bound() {
    let (transport, binder) = grpc::late();
    assert_eq!(check(&transport, CALL).await, Err(Code::Unavailable));
    binder.bind(grpc::in_process(HealthServer::new(Service::new(Behaviour::Answers))));
    assert_eq!(check(&transport, CALL).await, Ok(()));
}

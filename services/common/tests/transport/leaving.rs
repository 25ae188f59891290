//! Calls to a replica that is shutting down: a call that the replica did not accept was not done.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use confab_common::grpc::{self, Call};
use confab_common::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::calls::{Behaviour, CALL_LIMIT, Service, check};

const CALL: Call = Call::within(Duration::from_secs(30));
/// HTTP/2 frames (RFC 9113, 6).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// No stream was accepted.
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The first stream is refused.
const REFUSED_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers the first call on a connection with this frame, and closes the connection.
async fn refuse(mut stream: TcpStream, frame: &[u8]) {
    stream.write_all(SETTINGS).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    let mut head = [0; 9];
    while head[3] != 1 {
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
    }
    stream.write_all(frame).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn call_rejected_by_the_only_replica_is_unavailable() {
    for frame in [GO_AWAY, REFUSED_STREAM] {
        let (listener, address) = bind().await;
        let transport = grpc::connect(&format!("http://{address}")).unwrap();
        let leaving = async {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            refuse(stream, frame).await;
        };
        let (answer, ()) = tokio::join!(timeout(CALL_LIMIT, check(&transport, CALL)), leaving);
        assert_eq!(answer.expect("must end in time"), Err(Code::Unavailable));
    }
}

#[tokio::test]
async fn rejected_call_goes_to_the_replacement_replica() {
    let (listener, address) = bind().await;
    let (service, transport) = (Service::new(Behaviour::Answers), grpc::connect(&format!("http://{address}")).unwrap());
    let calling = tokio::spawn(async move { timeout(CALL_LIMIT, check(&transport, CALL)).await });
    let (stream, _) = listener.accept().await.unwrap();
    let _next = service.serve_on(listener);
    refuse(stream, GO_AWAY).await;
    assert_eq!(calling.await.unwrap().expect("must end in time"), Ok(()));
    assert_eq!(service.calls(), 1);
}

type Serving = JoinHandle<anyhow::Result<()>>;

/// Starts a server that has answered one call.
async fn serving(drain: Duration) -> (Process, SocketAddr, Serving) {
    let (listener, address) = bind().await;
    drop(listener);
    let process = Process::new();
    process.readiness.started();
    let serving = tokio::spawn({
        let process = process.clone();
        async move { grpc::serve(&process, address, drain, Routes::default()).await }
    });
    while TcpStream::connect(address).await.is_err() {
        sleep(Duration::from_millis(2)).await;
    }
    (process, address, serving)
}

#[tokio::test]
async fn call_that_exceeds_the_drain_time_is_cut() {
    let (process, address, serving) = serving(Duration::from_secs(1)).await;
    let mut client =
        HealthClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap());
    let mut watched = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watched.message().await.unwrap().unwrap();
    process.shutdown.cancel();
    timeout(CALL_LIMIT, serving).await.expect("must end in time").unwrap().unwrap();
}

#[tokio::test]
async fn connection_made_just_before_shutdown_is_served() {
    let (process, address, serving) = serving(CALL_LIMIT).await;
    // No await until the shutdown, so the runtime has not seen the connection by then.
    let mut client = std::net::TcpStream::connect(address).unwrap();
    io::Write::write_all(&mut client, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS].concat()).unwrap();
    client.set_nonblocking(true).unwrap();
    process.shutdown.cancel();
    let (mut client, mut frame) = (TcpStream::from_std(client).unwrap(), [0; 9]);
    timeout(CALL_LIMIT, client.read_exact(&mut frame)).await.expect("must end in time").unwrap();
    assert_eq!(frame[3], SETTINGS[3]);
    drop(client);
    timeout(CALL_LIMIT, serving).await.expect("must end in time").unwrap().unwrap();
}

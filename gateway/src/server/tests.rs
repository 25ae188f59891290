#[path = "tests/polls.rs"]
mod polls;
#[path = "tests/shares.rs"]
mod shares;
#[path = "tests/unread.rs"]
mod unread;
#[path = "tests/wire.rs"]
mod wire;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use self::shares::comes_in;
use super::*;
use axum::body::Bytes;
use axum::routing::{MethodRouter, get, post};
use clap::Parser;
use confab_common::process::Process;
use futures::stream::{StreamExt, repeat};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, Semaphore};

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: GatewayConfig,
}

/// The time within which the server answers a client that need not wait.
const NOW: Duration = Duration::from_millis(200);
/// How long requests in progress may take after shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Serves these routes; returns the address, the process, and a handle that completes when the server has stopped.
pub(crate) async fn serving(app: Router, settings: &[&str]) -> (SocketAddr, Process, tokio::task::JoinHandle<()>) {
    serving_counted(app, settings, Arc::default()).await
}

/// As [`serving`], with this memory limit.
pub(crate) async fn serving_counted(
    app: Router,
    settings: &[&str],
    budget: Arc<Budget>,
) -> (SocketAddr, Process, tokio::task::JoinHandle<()>) {
    let config = Settings::parse_from(["test"].iter().chain(settings)).gateway;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, process) = (listener.local_addr().unwrap(), Process::new());
    let plan =
        ShutdownPlan { leaving: process.leaving.clone(), shutdown: process.shutdown.clone(), within: DRAIN_LIMIT };
    (
        address,
        process,
        tokio::spawn(async move {
            serve(listener, app, &plan, &Admission::of_clients(&config, config.max_connections, budget)).await
        }),
    )
}

async fn sent(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_the_rejection() {
    let refuse = post(|| async { ([("connection", "close")], "too large") });
    let (address, ..) = serving(Router::new().route("/", refuse), &[]).await;
    let mut stream = sent(address, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await;
    // Blocks unless the server reads the data, and fails if the connection is reset.
    stream.write_all(&vec![b'x'; 8_000_000]).await.unwrap();
    assert!(read_all(stream).await.ends_with("too large"));
}

/// A route that notifies `reached` when it starts, and answers when `go_on` is notified.
fn slow() -> (MethodRouter, Arc<Notify>, Arc<Notify>) {
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reaching, going_on) = (reached.clone(), go_on.clone());
    let route = get(move || async move {
        reaching.notify_one();
        going_on.notified().await;
        "done"
    });
    (route, reached, go_on)
}

#[tokio::test]
async fn shutdown_finishes_requests_in_progress_and_closes_idle_connections() {
    let (slow, reached, go_on) = slow();
    let (address, process, server) = serving(Router::new().route("/", slow), &[]).await;
    let idle = TcpStream::connect(address).await.unwrap();
    let busy = sent(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    reached.notified().await;
    process.shutdown.cancel();
    assert_eq!(read_all(idle).await, "");
    go_on.notify_one();
    assert!(read_all(busy).await.ends_with("done"));
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_answers_connections_in_the_accept_queue() {
    let (slow, reached, go_on) = slow();
    let routes = Router::new().route("/slow", slow).route("/", get(|| async { "here" }));
    for settings in [&[][..], &["--max-connections", "1"]] {
        let (address, process, server) = serving(routes.clone(), settings).await;
        let busy = sent(address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        reached.notified().await;
        // No await between these lines, so the runtime has not accepted the connections at shutdown.
        let queued = [(); 3].map(|()| std::net::TcpStream::connect(address).unwrap());
        for mut queued in &queued {
            io::Write::write_all(&mut queued, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            queued.set_nonblocking(true).unwrap();
        }
        process.shutdown.cancel();
        go_on.notify_one();
        assert!(read_all(busy).await.ends_with("done"));
        for queued in queued {
            assert!(read_all(TcpStream::from_std(queued).unwrap()).await.ends_with("here"));
        }
        server.await.unwrap();
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let (address, ..) = serving(Router::new().route("/", get(|| async { "here" })), &["--max-connections", "1"]).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut first = sent(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut head = [0; 15];
    first.read_exact(&mut head).await.unwrap();
    let second = sent(address, request).await;
    let mut second = pin!(read_all(second));
    timeout(NOW, &mut second).await.expect_err("no permit is free");
    drop(first);
    assert!(second.await.ends_with("here"));
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_permit() {
    let kept = Arc::new(parking_lot::Mutex::new(None));
    let keeping = kept.clone();
    let route = get(move |axum::Extension(permit): axum::Extension<ConnectionPermit>| async move {
        *keeping.lock() = Some(permit)
    });
    let (address, ..) = serving(Router::new().route("/", route), &["--max-connections", "1"]).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    read_all(sent(address, request).await).await;
    let mut next = pin!(read_all(sent(address, request).await));
    timeout(NOW, &mut next).await.expect_err("no permit is free");
    kept.lock().take();
    assert!(next.await.contains("200 OK"));
}

/// A client that has read the first byte of a response larger than all buffers, and reads no more.
async fn stuck(address: SocketAddr) -> TcpStream {
    let mut stream = sent(address, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(stream.read_u8().await.unwrap(), b'H');
    stream
}

fn large() -> Router {
    let large = get(|| async { vec![b'x'; 64 * 1024 * 1024] });
    Router::new().route("/large", large).route("/", get(|| async { "here" }))
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_loses_its_connection() {
    let (address, ..) = serving(large(), &["--max-connections", "1"]).await;
    let _stuck = stuck(address).await;
    let next = read_all(sent(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await);
    assert!(timeout(Duration::from_secs(100), next).await.unwrap().ends_with("here"));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_does_not_delay_shutdown() {
    let (address, process, server) = serving(large(), &[]).await;
    let _stuck = stuck(address).await;
    process.shutdown.cancel();
    timeout(DRAIN_LIMIT + Duration::from_secs(1), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_http_are_rejected() {
    let (address, ..) = serving(Router::new(), &[]).await;
    assert!(read_all(sent(address, "hello\r\n\r\n").await).await.starts_with("HTTP/1.1 400"));
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert!(read_all(sent(address, &long).await).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test(start_paused = true)]
async fn half_a_head_has_less_time_while_most_connections_are_in_use() {
    let (address, ..) = serving(Router::new().route("/", get(|| async { "here" })), &["--max-connections", "4"]).await;
    let _held =
        [comes_in(address, [127, 0, 0, 1], "").await.unwrap(), comes_in(address, [127, 0, 0, 1], "").await.unwrap()];
    let mut half = Vec::new();
    for from in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        half.push(stream);
    }
    // All permits are taken. The connections with half a head are closed first.
    let next = tokio::time::Instant::now();
    assert!(comes_in(address, [127, 0, 0, 4], "").await.is_some());
    assert!(next.elapsed() < Duration::from_secs(10), "{:?}", next.elapsed());
}

#[test]
fn the_client_address_from_another_gateway_is_trusted() {
    let admission = Admission::of_gateways(&Settings::parse_from(["test"]).gateway, 1, Arc::default());
    for client in ["198.51.100.7", "2001:db8:1:2::"] {
        let headers =
            [("x-forwarded-for".parse().unwrap(), HeaderValue::from_str(client).unwrap())].into_iter().collect();
        assert_eq!(ClientAddress::of([10, 0, 0, 1].into(), &headers, &admission.trusted).to_string(), client);
    }
}

#[tokio::test]
async fn a_client_that_half_closes_is_answered() {
    let (slow, reached, go_on) = slow();
    let echo = post(|body: String| async move { body });
    let (address, ..) = serving(Router::new().route("/", slow).route("/echo", echo), &[]).await;
    let mut waiting = sent(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    waiting.shutdown().await.unwrap();
    reached.notified().await;
    go_on.notify_one();
    assert!(read_all(waiting).await.ends_with("done"));
    for request in [
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nwhole",
        "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nxPOST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nwhole",
    ] {
        for at in [request.len(), request.len() - 3] {
            let mut client = sent(address, &request[..at]).await;
            client.write_all(&request.as_bytes()[at..]).await.unwrap();
            client.shutdown().await.unwrap();
            let answer = read_all(client).await;
            assert!(answer.ends_with("whole"), "{request} {answer}");
        }
    }
}

#[tokio::test]
async fn a_request_whose_body_ends_early_ends() {
    let (reached, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reaching, ending) = (reached.clone(), ended.clone());
    let read = post(move |body: Result<Bytes, axum::extract::rejection::BytesRejection>| async move {
        reaching.notify_one();
        assert!(body.is_err());
        ending.notify_one();
    });
    let (address, ..) = serving(Router::new().route("/", read), &[]).await;
    for head in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = sent(address, &format!("POST / HTTP/1.1\r\nhost: x\r\n{head}")).await;
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn malformed_http_is_rejected_with_a_problem() {
    let (address, ..) = serving(Router::new().route("/", get(|| async { "here" })), &[]).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let longer = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    for (request, status) in [
        ("GET / HTTP/1.1\nhost: x\n\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nhost: x\nx: y\r\n\r\n", "400 Bad Request"),
        ("GET  / HTTP/1.1\r\nhost: x\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nho st: x\r\n\r\n", "400 Bad Request"),
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03 \r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\nhost: x\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
        (&longer, "431 Request Header Fields Too Large"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        // The server may reject the request before it has read all of it.
        let _ = client.write_all(request.as_bytes()).await;
        let answer =
            timeout(Duration::from_secs(5), read_all(client)).await.unwrap_or_else(|_| panic!("{request:.80}"));
        let last = &answer[answer.rfind("HTTP/1.1").unwrap()..];
        let (head, body) = last.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:.80} {answer}");
        assert!(
            head.contains("application/problem+json") && head.contains(&format!("Content-Length: {}", body.len())),
            "{answer}"
        );
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(document["status"].to_string(), status[..3]);
        assert!(head.contains(document["requestId"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_connection_may_idle_for_its_keep_alive_time() {
    let (address, ..) = serving(Router::new().route("/", get(|| async { "here" })), &["--idle-timeout", "2s"]).await;
    let mut client = sent(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = vec![0; 4096];
    let length = client.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("keep-alive: timeout=2\r\n"));
    let idle = tokio::time::Instant::now();
    assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    assert!((1900..4000).contains(&idle.elapsed().as_millis()), "{:?}", idle.elapsed());
}

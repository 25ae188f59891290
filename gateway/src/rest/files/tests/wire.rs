//! Behaviour that is visible only on a real connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use confab_common::grpc;
use confab_proto::file::v1::file_service_server::FileServiceServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::rest::tests::gateway_over;
use crate::server::tests::serving;

/// The head of a request with a token.
fn head(start: &str, more: &str) -> String {
    let request = authorized(Request::get("/")).body(()).unwrap();
    let token = request.headers()["authorization"].to_str().unwrap();
    format!("{start} HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\n{more}\r\n")
}

fn upload_head(more: &str) -> String {
    head("POST /api/files/upload", &format!("content-type: multipart/form-data; boundary=XX\r\n{more}"))
}

/// Reads a response with the declared length; `None` when the connection ends.
async fn answer(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = vec![0; if head.contains(" 304 ") { 0 } else { length }];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn served(files: &Files) -> (SocketAddr, confab_common::process::Process) {
    let (address, process, _) = serving(gateway_with(&[], files).await, &[]).await;
    (address, process)
}

#[tokio::test]
async fn one_connection_serves_uploads_and_downloads() {
    let files = Files::default();
    let (address, _process) = served(&files).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let content = "x".repeat(500_000);
    let form = format!("{}--XX--\r\n", file("a", &content));
    let chunked = format!("{:x}\r\n{form}\r\n0\r\n\r\n", form.len());
    for (more, body) in
        [(format!("content-length: {}\r\n", form.len()), &form), ("transfer-encoding: chunked\r\n".into(), &chunked)]
    {
        stream.write_all(format!("{}{body}", upload_head(&more)).as_bytes()).await.unwrap();
        let (head, body) = answer(&mut stream).await.unwrap();
        assert!(head.starts_with("http/1.1 201"), "{head}");
        let file = serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        let url = file["url"].as_str().unwrap();
        for range in ["", "range: bytes=-10\r\n"] {
            stream.write_all(head_of(url, range).as_bytes()).await.unwrap();
            let (_, body) = answer(&mut stream).await.unwrap();
            assert_eq!(body.len(), if range.is_empty() { content.len() } else { 10 });
        }
        let tag = format!("if-none-match: \"{}\"\r\n", file["sha256"].as_str().unwrap());
        stream.write_all(head_of(url, &tag).as_bytes()).await.unwrap();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert!(head.starts_with("http/1.1 304") && !head.contains("content-length: 0"), "{head}");
    }
    assert_eq!(files.count(), 2);
}

fn head_of(url: &str, more: &str) -> String {
    head(&format!("GET {url}"), more)
}

#[tokio::test]
async fn a_client_that_exceeds_the_limit_can_read_the_error() {
    let files = Files::default();
    let (address, _process) = served(&files).await;
    let length = 4 * MAX_FILE;
    for more in [format!("content-length: {length}\r\n"), "transfer-encoding: chunked\r\n".into()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(upload_head(&more).as_bytes()).await.unwrap();
        let chunked = more.starts_with("transfer");
        if chunked {
            stream.write_all(format!("{length:x}\r\n").as_bytes()).await.unwrap();
        }
        stream.write_all(file("a", "").as_bytes()).await.unwrap();
        // Blocks unless the server reads it, and fails when the connection is reset.
        stream.write_all(&vec![b'x'; length - 1000]).await.unwrap();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert!(head.starts_with("http/1.1 413") && head.contains("connection: close"), "{head}");
        assert!(answer(&mut stream).await.is_none());
    }
    eventually(|| files.under_way() == 0).await;
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn truncated_uploads_store_nothing() {
    let files = Files::default();
    let (address, _process) = served(&files).await;
    let mut short = TcpStream::connect(address).await.unwrap();
    let form = file("a", "text");
    short
        .write_all(format!("{}{form}", upload_head(&format!("content-length: {}\r\n", form.len()))).as_bytes())
        .await
        .unwrap();
    assert!(answer(&mut short).await.unwrap().0.starts_with("http/1.1 400"));

    let mut gone = TcpStream::connect(address).await.unwrap();
    gone.write_all(format!("{}{form}", upload_head("content-length: 100000\r\n")).as_bytes()).await.unwrap();
    eventually(|| files.under_way() == 1).await;
    drop(gone);
    eventually(|| files.under_way() == 0).await;
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn a_broken_download_closes_the_connection() {
    let files = Files::default();
    let id = files.put("a", "text/plain", vec![b'x'; 100_000]);
    files.break_after(50_000);
    let (address, _process) = served(&files).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head_of(&format!("/api/files/{id}"), "").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let head = String::from_utf8_lossy(&all[..500]).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 100000"), "{head}");
    assert!((10_000..100_000).contains(&all.len()));
}

/// All routes, over a file service with its own runtime. Shutting the runtime down ends the service like a process.
async fn network(files: &Files) -> (Router, Runtime) {
    let runtime = Runtime::new().unwrap();
    let entered = runtime.enter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let server = Server::builder().add_service(FileServiceServer::new(files.clone())).serve_with_incoming(incoming);
    runtime.spawn(server);
    drop(entered);
    (gateway_over(&[], grpc::connect(&url).unwrap()).await, runtime)
}

#[tokio::test]
async fn files_work_over_the_network() {
    let files = Files::default();
    let (routes, server) = network(&files).await;
    let content = "x".repeat(3_000_000);
    let first = post(&routes, &[part("clientMessageId", "a"), file("a", &content)]).await;
    assert_eq!(first.status, 201);
    assert_eq!(post(&routes, &[part("clientMessageId", "a"), file("a", &content)]).await.status, 200);
    let url = first.json["url"].as_str().unwrap();
    let answer = routes.clone().oneshot(reading(url).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), content);

    assert_eq!(problem(&send_body(&routes, posting(), endless()).await), (413, "too_large"));
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(file("a", "some text")))]);
    let request = posting().body(Body::from_stream(begin.chain(stream::pending()))).unwrap();
    let uploading = tokio::spawn(routes.clone().oneshot(request));
    eventually(|| files.under_way() == 1).await;
    uploading.abort();
    eventually(|| files.under_way() == 0).await;

    // The service ends during an upload and does not return.
    let first = Bytes::from(file("a", "some text"));
    let begun = files.clone();
    let dies = stream::once(async move {
        eventually(|| begun.under_way() == 1).await;
        server.shutdown_background();
        Ok::<_, std::io::Error>(Bytes::from_static(b"more"))
    });
    let body = stream::iter([Ok(first)]).chain(dies).chain(stream::pending());
    assert_eq!(problem(&send_body(&routes, posting(), Body::from_stream(body)).await), (503, "unavailable"));
    assert_eq!(files.count(), 1);
    for request in
        [reading(url), reading("/api/files"), reading(&format!("{url}/link")), authorized(Request::delete(url))]
    {
        assert_eq!(problem(&send(&routes, request).await), (503, "unavailable"));
    }
    assert_eq!(problem(&post(&routes, &[file("a", "a")]).await), (503, "unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_disconnected() {
    let files = Files::default();
    let size = 64 * 1024 * 1024;
    let id = files.put("a", "text/plain", vec![b'x'; size]);
    let (address, _process, _) = serving(gateway_with(&[], &files).await, &["--max-connections", "1"]).await;
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(head_of(&format!("/api/files/{id}"), "").as_bytes()).await.unwrap();
    assert_eq!(stuck.read_u8().await.unwrap(), b'H');
    // Its connection permit is free although the client still reads nothing.
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(head_of(&format!("/api/files/{id}"), "range: bytes=-10\r\n").as_bytes()).await.unwrap();
    // A day of the paused clock, which advances whenever both sides wait for the network.
    let answered = tokio::time::timeout(std::time::Duration::from_secs(86_400), answer(&mut next)).await;
    assert_eq!(answered.unwrap().unwrap().1, b"xxxxxxxxxx");
    let mut rest = Vec::new();
    let _ = stuck.read_to_end(&mut rest).await;
    assert!(rest.len() < size, "{}", rest.len());
}

#[tokio::test(start_paused = true)]
async fn back_pressure_from_the_service_reaches_the_client() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    files.stall();
    let begin = file("a", "");
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(begin.strip_suffix("\r\n").unwrap().to_owned()))]);
    let read = Arc::new(AtomicUsize::new(0));
    let counting = read.clone();
    let body = Body::from_stream(begin.chain(stream::repeat_with(move || {
        counting.fetch_add(16 * 1024, Ordering::Relaxed);
        Ok(Bytes::from_static(&[b'x'; 16 * 1024]))
    })));
    assert_eq!(problem(&send_body(&routes, posting(), body).await), (503, "unavailable"));
    assert!(read.load(Ordering::Relaxed) < 512 * 1024);
}

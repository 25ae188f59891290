//! Requests to a failing store, simulated by a socket, and behaviour of a real store that the contract does not cover.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use confab_common::{Code, testing};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::memory::Memory;

/// Bytes of a part.
const PART: usize = LEAST_PART as usize;
/// Time limit for an error of an unreachable store, long enough for a machine that stands still for a while.
const IN_TIME: Duration = Duration::from_secs(15);

struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
}

/// The simulated store's reaction to a request.
enum Reply {
    /// Never answers.
    Silence,
    /// Sends these bytes and closes the connection.
    Bytes(Vec<u8>),
}

fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Bytes(
        format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        )
        .into(),
    )
}

/// Closes the connection without an answer.
fn cut() -> Reply {
    Reply::Bytes(vec![])
}

fn parts() -> Parts {
    Memory::new(1 << 30).parts(Uuid::nil())
}

fn account(port: u16) -> Account {
    let key = Key { id: "key".into(), secret: "secret".into(), token: Some("token".into()) };
    Account { endpoint: Some(format!("http://127.0.0.1:{port}")), region: "us-east-1".into(), key: Some(key) }
}

/// Starts a store that answers with `reply`.
async fn store(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> S3 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = S3::new("bucket", "", account(listener.local_addr().unwrap().port()), 1);
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let reply = reply.clone();
            tokio::spawn(async move {
                let Some(request) = receive(&mut stream).await else { return };
                match reply(&request) {
                    Reply::Silence => pending().await,
                    Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap_or_default(),
                }
            });
        }
    });
    store
}

async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(String::from);
    let headers =
        lines.filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())));
    let request = Request { method: first.next()?, target: first.next()?, headers: headers.collect() };
    let length = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(request)
}

/// Returns the error code of a request, within the time limit.
async fn refusal<T>(question: impl Future<Output = Result<T>>) -> Option<Code> {
    timeout(IN_TIME, question).await.expect("an answer in time").err().map(|error| error.code)
}

/// Checks that every request to the store fails with this code in time.
async fn fails(store: &S3, code: Code) {
    let refusals = [
        refusal(store.create(Uuid::now_v7(), parts())).await,
        refusal(store.read(Uuid::now_v7(), 0, 1)).await,
        refusal(store.delete(Uuid::now_v7())).await,
        refusal(store.list(Uuid::nil(), 1)).await,
        refusal(store.abandon(SystemTime::now())).await,
    ];
    assert_eq!(refusals, [Some(code); 5]);
}

#[tokio::test]
async fn unreachable_store_is_unavailable_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    fails(&S3::new("bucket", "", account(port), 1), Code::Unavailable).await;
}

#[tokio::test]
async fn silent_store_is_unavailable_in_time() {
    fails(&store(|_| Reply::Silence).await, Code::Unavailable).await;
}

#[tokio::test]
async fn overloaded_store_is_unavailable() {
    fails(&store(|_| cut()).await, Code::Unavailable).await;
    fails(&store(|_| answer(503, "", "<Error><Code>SlowDown</Code></Error>")).await, Code::Unavailable).await;
}

#[tokio::test]
async fn missing_bucket_is_an_error() {
    let refused = |request: &Request| match request.method.as_str() {
        "HEAD" => answer(404, "", ""),
        _ => answer(403, "", "<Error><Code>AccessDenied</Code></Error>"),
    };
    assert_eq!(store(refused).await.create(Uuid::now_v7(), parts()).await.err().unwrap().code, Code::Unavailable);
    let missing = |_: &Request| answer(404, "", "<Error><Code>NoSuchBucket</Code></Error>");
    // This does not mean that the object is gone.
    assert_eq!(store(missing).await.read(Uuid::now_v7(), 0, 1).await.err().unwrap().code, Code::Unavailable);
    assert_eq!(store(missing).await.delete(Uuid::now_v7()).await.unwrap_err().code, Code::Unavailable);
}

/// Returns the result of checking a store that reacts to conditional writes like this.
async fn trial(conditional: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> std::result::Result<(), String> {
    let owner = Owner::from_bytes(b"of the test");
    let reply = move |request: &Request| match request.method.as_str() {
        "PUT" if request.headers.contains_key("if-none-match") => conditional(request),
        "GET" => answer(404, "", "<Error><Code>NoSuchKey</Code></Error>"),
        _ => answer(200, "", ""),
    };
    store(reply).await.check(owner).await
}

#[tokio::test]
async fn store_without_conditional_writes_is_detected() {
    let lacks = trial(|_| answer(501, "", "<html>Not Implemented</html>")).await.unwrap_err();
    assert!(lacks.starts_with("the store has no conditional writes (If-None-Match)"), "{lacks}");
    let ignores = trial(|_| answer(200, "", "")).await.unwrap_err();
    assert!(ignores.starts_with("the store ignores the condition of a write (If-None-Match)"), "{ignores}");
    let written = AtomicUsize::new(0);
    let respects = move |_: &Request| match written.fetch_add(1, Ordering::Relaxed) {
        0 => answer(200, "", ""),
        _ => answer(412, "", "<Error><Code>PreconditionFailed</Code></Error>"),
    };
    assert_eq!(trial(respects).await, Ok(()));
}

#[tokio::test]
async fn requests_carry_the_session_token() {
    let sees = |request: &Request| match request.headers.get("x-amz-security-token").map(String::as_str) {
        Some("token") => answer(204, "", ""),
        _ => answer(403, "", ""),
    };
    store(sees).await.delete(Uuid::now_v7()).await.unwrap();
}

#[tokio::test]
async fn unanswered_write_may_have_been_done() {
    let silent = |request: &Request| if request.method == "HEAD" { answer(200, "", "") } else { Reply::Silence };
    let writer = store(silent).await.create(Uuid::now_v7(), parts()).await.unwrap();
    assert_eq!(refusal(writer.finish()).await, Some(Code::Timeout));
}

#[tokio::test]
async fn write_with_a_lost_answer_succeeds() {
    let stored = Mutex::new(None);
    let forgetful = move |request: &Request| {
        let mut stored = stored.lock();
        match (request.method.as_str(), stored.clone()) {
            ("PUT", None) => {
                *stored = request.headers.get("x-amz-meta-writer").cloned();
                cut()
            }
            ("PUT", Some(_)) => answer(412, "", "<Error><Code>PreconditionFailed</Code></Error>"),
            (_, None) => answer(200, "", ""),
            (_, Some(writer)) => answer(200, &format!("x-amz-meta-writer: {writer}\r\n"), ""),
        }
    };
    let store = store(forgetful).await;
    store.create(Uuid::now_v7(), parts()).await.unwrap().finish().await.unwrap();
    // Another writer's object is still a conflict.
    assert_eq!(store.create(Uuid::now_v7(), parts()).await.unwrap().finish().await.unwrap_err().code, Code::Conflict);
}

#[tokio::test]
async fn upload_that_fails_midway_is_aborted() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let failing = move |request: &Request| match request.method.as_str() {
        "HEAD" => answer(200, "", ""),
        "POST" => {
            answer(200, "", "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>")
        }
        "DELETE" => {
            assert!(request.target.contains("uploadId=7"), "{}", request.target);
            counted.fetch_add(1, Ordering::Relaxed);
            answer(204, "", "")
        }
        _ => answer(500, "", "<Error><Code>InternalError</Code></Error>"),
    };
    let store = store(failing).await;
    let begun = async || {
        let mut writer = store.create(Uuid::now_v7(), parts()).await.unwrap();
        writer.write(vec![0; PART + 1].into()).await.unwrap();
        writer
    };
    assert_eq!(begun().await.finish().await.unwrap_err().code, Code::Unavailable);
    eventually(async || ended.load(Ordering::Relaxed) == 1).await;
    // The failure is reported even if no more is written.
    assert_eq!(begun().await.failed().await.code, Code::Unavailable);
    eventually(async || ended.load(Ordering::Relaxed) == 2).await;
}

#[tokio::test]
async fn interrupted_body_is_resumed() {
    let content: Bytes = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
    let (whole, asked) = (content.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    // Returns a third of the rest each time, and once no bytes.
    let breaking = move |request: &Request| {
        let (first, last) = request.headers["range"].trim_start_matches("bytes=").split_once('-').unwrap();
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
        let rest = &whole[first..=last];
        let sent = if counted.fetch_add(1, Ordering::Relaxed) == 2 {
            0
        } else {
            rest.len().div_ceil(3).max(2000).min(rest.len())
        };
        let head = format!(
            "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\nConnection: close\r\n\r\n",
            rest.len(),
            whole.len()
        );
        Reply::Bytes([head.as_bytes(), &rest[..sent]].concat())
    };
    let reading = store(breaking).await.read(Uuid::now_v7(), 3, 39_990).await.unwrap().unwrap();
    let read = reading.try_collect::<Vec<_>>().await.unwrap().concat();
    assert!(read == content[3..39_993], "{} bytes", read.len());
    assert!(asked.load(Ordering::Relaxed) > 5);
}

#[tokio::test]
async fn body_without_progress_is_an_error() {
    let head = "HTTP/1.1 206 Partial\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/10\r\nConnection: close\r\n\r\n";
    let reading = store(move |_| Reply::Bytes(head.into())).await.read(Uuid::now_v7(), 0, 10).await.unwrap().unwrap();
    assert_eq!(reading.try_collect::<Vec<_>>().await.unwrap_err().code, Code::Unavailable);
    // A store that ignores ranges would send the wrong bytes.
    let ignorant = store(|_| answer(200, "", "0123456789")).await;
    assert_eq!(ignorant.read(Uuid::now_v7(), 5, 5).await.err().unwrap().code, Code::Internal);
}

#[tokio::test]
async fn dropped_upload_is_aborted_at_the_store() {
    let server = testing::s3();
    let key = Key { id: server.key, secret: server.secret, token: None };
    let account = Account { endpoint: Some(server.endpoint), region: "us-east-1".into(), key: Some(key) };
    let store = S3::answering(&format!("test-{}", Uuid::now_v7()), "", account, 1, Duration::from_secs(30));
    let begun = async || {
        let answer = store.0.client.list_multipart_uploads().bucket(&store.0.name).send().await.unwrap();
        answer.uploads().len()
    };
    let mut writer = store.create(Uuid::now_v7(), parts()).await.unwrap();
    writer.write(vec![0; 2 * PART + 1].into()).await.unwrap();
    assert_eq!(begun().await, 1);
    drop(writer);
    eventually(async || begun().await == 0).await;
}

async fn eventually(condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 10 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

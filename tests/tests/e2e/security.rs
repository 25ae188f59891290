//! What an attacker tries from outside. docs/security-tests.md lists these tests with those of other files.

mod bombs;
mod errors;
mod exposure;
mod identity;
mod input;
mod load;
mod tokens;

use std::time::Duration;

use confab_tests::api::Answer;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time limit for an answer to an unmodified request.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends bytes on a connection of their own; returns all bytes that arrive until the server ends it.
async fn raw(url: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    // The server may reject the request, and end the connection, before it has read all of it.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(ANSWER_LIMIT, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the status in such an answer.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer}"))
}

/// Returns what a client can tell apart in an answer.
fn shown(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut body = answer.body.clone();
    body["requestId"] = serde_json::Value::Null;
    (answer.status, lasting(&answer.headers), body.to_string())
}

/// Returns the headers that do not differ between two equal requests.
fn lasting(headers: &HeaderMap) -> Vec<(String, String)> {
    let ignored = ["date", "x-request-id", "ratelimit", "ratelimit-policy"];
    let lasting = headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    lasting.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
}

//! Connections that cause large answers and read none of them, or that send most of a large request and then stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::net::Http;
use super::silent::{enter, payload};
use super::{Field, RETRY_PAUSE, again};

/// Receive window in bytes, so small that the system buffers little for a client.
const WINDOW: u32 = 4096;
/// Connections that request pages, and how many requests each sends at once.
const PAGES: usize = 300;
const PIPELINED_REQUESTS: usize = 3;
/// Sessions that poll repeatedly, and how often.
const POLLS: usize = 20;
/// Long messages that are repeated between two polls.
const ANSWERS: usize = 15;
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Connections with an unfinished body, and its bytes.
const BODIES: usize = 700;
const BODY: usize = 255_000;
/// Connections with an unfinished head, and its bytes.
const HEADS: usize = 9000;
const HEAD: usize = 30_000;

/// Pages of 200 long messages that are not read.
pub fn pages(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let path = format!("/api/messages/{}?limit=200", field.rooms[0].0);
    let request = request(field, "GET", &path, &bearer(field)).repeat(PIPELINED_REQUESTS);
    hold(PAGES, "pages", field, tasks, &request);
}

/// Long polls that are not read, one after another in each session, each over a separate connection.
pub fn polls(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let payload = payload(&field.rooms[..ANSWERS]);
    for _ in 0..POLLS {
        let payload = payload.clone();
        tasks.spawn_local(again(field.clone(), "sessions", async move |field: &Field, http: &mut Http| {
            let path = enter(field, http, true).await?;
            let mut unread = Vec::new();
            loop {
                http.post(&path, "", payload.as_bytes()).await?.expect(200)?;
                let mut stream = field.route.open(Some(WINDOW)).await?;
                stream.write_all(request(field, "GET", &path, "").as_bytes()).await?;
                field.tally.count("polls", 1);
                unread.push(stream);
                sleep(POLL_EVERY).await;
            }
        }));
    }
}

/// JSON bodies without their last bytes.
pub fn bodies(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let headers = format!("{}Content-Type: application/json\r\nContent-Length: {}\r\n", bearer(field), BODY + 1);
    let request = request(field, "POST", "/api/messages", &headers) + &" ".repeat(BODY);
    hold(BODIES, "bodies", field, tasks, &request);
}

/// Heads without their last bytes.
pub fn heads(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let request = request(field, "GET", "/api/rooms", &format!("X-Long: {}\r\n", "x".repeat(HEAD)));
    hold(HEADS, "heads", field, tasks, &request[..request.len() - 2]);
}

fn bearer(field: &Field) -> String {
    format!("Authorization: Bearer {}\r\n", field.account.token)
}

fn request(field: &Field, method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", field.route.to)
}

/// Keeps connections open on which the same request is sent once; one that ends is reopened.
fn hold(count: usize, what: &'static str, field: &Arc<Field>, tasks: &mut JoinSet<()>, request: &str) {
    let request = Arc::<str>::from(request);
    for number in 0..count {
        let (field, request) = (field.clone(), request.clone());
        tasks.spawn_local(async move {
            sleep(Duration::from_millis(1) * number as u32).await;
            loop {
                let Ok(mut stream) = field.route.open(Some(WINDOW)).await else {
                    field.tally.failed(what, "refused");
                    sleep(RETRY_PAUSE).await;
                    continue;
                };
                match stream.write_all(request.as_bytes()).await {
                    Ok(()) => field.tally.count(what, 1),
                    Err(error) => field.tally.failed(what, &error.to_string()),
                }
                ended(&mut stream).await;
                sleep(RETRY_PAUSE).await;
            }
        });
    }
}

/// Waits for the end of a connection without reading.
async fn ended(stream: &mut TcpStream) {
    while let Ok(ready) = stream.ready(tokio::io::Interest::READABLE | tokio::io::Interest::ERROR).await {
        if ready.is_read_closed() || ready.is_error() {
            return;
        }
        sleep(RETRY_PAUSE).await;
    }
}

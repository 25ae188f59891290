//! Sessions that are opened and abandoned, at the full speed of two connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::net::Route;
use super::{Field, RETRY_PAUSE, pace};

/// The total number of handshakes.
const HANDSHAKES: usize = 400_000;
const CONNECTIONS: usize = 2;
/// Handshakes per second of one connection, and bytes per second when the headers are long.
const RATE: usize = 25_000;
const BYTES: usize = 60_000_000;
/// How often a batch is written.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);

/// Opens connections that send one handshake after another, with a token of this number of bytes in a header.
pub fn begin(field: &Arc<Field>, tasks: &mut JoinSet<()>, header: usize) {
    let request = request(field.route, header);
    let batch = batch(request.len());
    for _ in 0..CONNECTIONS {
        let (field, requests) = (field.clone(), request.repeat(batch));
        tasks.spawn_local(async move {
            let mut left = HANDSHAKES / CONNECTIONS;
            let mut ticks = pace(BATCH_INTERVAL);
            while left > 0 {
                let Ok(stream) = field.route.open(None).await else {
                    field.tally.failed("connection", "refused");
                    sleep(RETRY_PAUSE).await;
                    continue;
                };
                let (mut input, mut output) = stream.into_split();
                let answers = field.clone();
                let reading = tokio::spawn(async move {
                    let mut scratch = vec![0; 256 * 1024];
                    while let Ok(length @ 1..) = input.read(&mut scratch).await {
                        let refusals = scratch[..length]
                            .windows(13)
                            .filter(|part| part.starts_with(b"HTTP/1.1 ") && &part[9..12] != b"200");
                        answers.tally.count("refused answers", refusals.count() as u64);
                    }
                });
                while left > 0 {
                    ticks.tick().await;
                    if output.write_all(requests.as_bytes()).await.is_err() {
                        break;
                    }
                    field.tally.count("handshakes", batch as u64);
                    left = left.saturating_sub(batch);
                }
                // Requests in flight are answered before the connection is closed.
                let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
                field.tally.count("connections", 1);
            }
        });
    }
}

/// Returns how many requests are written at a time.
fn batch(length: usize) -> usize {
    let in_a_second = RATE.min(BYTES / length);
    (in_a_second / (1000 / BATCH_INTERVAL.as_millis() as usize)).max(1)
}

fn request(route: Route, header: usize) -> String {
    let authorization = match header {
        0 => String::new(),
        bytes => format!("Authorization: Bearer {}\r\n", "x".repeat(bytes)),
    };
    format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: {}\r\n{authorization}\r\n", route.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_respect_both_rates() {
        assert_eq!((batch(100), batch(30_000), batch(10_000_000)), (250, 20, 1));
    }
}

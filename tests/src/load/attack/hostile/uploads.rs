//! Many uploads of one account, each at an even rate.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::net::Http;
use super::{Field, RETRY_PAUSE, pace};
use crate::form::{BOUNDARY, content_type, file_headers};

/// Concurrent uploads.
const UPLOADS: usize = 100;
/// Size of one file in bytes.
const FILE: u64 = 50_000_000;
/// How often a chunk is written.
const CHUNK_INTERVAL: Duration = Duration::from_millis(100);

/// Uploads at this number of bytes per second each.
pub fn begin(field: &Arc<Field>, tasks: &mut JoinSet<()>, rate: u64) {
    for number in 0..UPLOADS {
        let field = field.clone();
        tasks.spawn_local(async move {
            sleep(Duration::from_millis(5) * number as u32).await;
            loop {
                match upload(&field, rate).await {
                    Ok(()) => field.tally.count("whole uploads", 1),
                    Err(error) => field.tally.failed("whole uploads", &format!("{error:#}")),
                }
                sleep(RETRY_PAUSE).await;
            }
        });
    }
}

async fn upload(field: &Field, rate: u64) -> anyhow::Result<()> {
    let mut http = field.route.http().await?;
    let before = format!("--{BOUNDARY}\r\n{}\r\n", file_headers("much.bin", "application/octet-stream"));
    let after = format!("\r\n--{BOUNDARY}--\r\n");
    let length = before.len() as u64 + FILE + after.len() as u64;
    let headers = format!(
        "Authorization: Bearer {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\n",
        field.account.token,
        content_type()
    );
    let head = http.head("POST /api/files/upload", &headers);
    http.stream().write_all([head, before].concat().as_bytes()).await?;
    field.tally.count("uploads begun", 1);
    let piece = vec![b'x'; (rate as usize / 10).max(1)];
    let mut left = FILE as usize;
    let mut ticks = pace(CHUNK_INTERVAL);
    while left > 0 {
        ticks.tick().await;
        let now = left.min(piece.len());
        write(&mut http, &piece[..now]).await?;
        field.tally.count("bytes", now as u64);
        left -= now;
    }
    write(&mut http, after.as_bytes()).await?;
    http.answer(false).await?.expect(201).map(drop)
}

/// Writes all bytes, unless the server answers or ends the connection first.
async fn write(http: &mut Http, bytes: &[u8]) -> anyhow::Result<()> {
    let (mut input, mut output) = http.stream().split();
    let mut answer = [0; 200];
    tokio::select! {
        biased;
        read = input.read(&mut answer) => match read? {
            0 => bail!("closed by the server"),
            length => bail!("answered early: {}", String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default()),
        },
        written = output.write_all(bytes) => Ok(written?),
    }
}

//! Sessions that are opened and abandoned.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PACKET_LIMIT;

/// This many requests are sent before their responses are read.
const TOGETHER: usize = 50;

/// Opens `count` polling sessions over one connection, with these header lines, each ending in CR LF.
///
/// # Errors
/// When a session is rejected, or the connection has ended.
pub async fn open_and_forget(url: &str, count: usize, headers: &str) -> anyhow::Result<()> {
    let host = url.strip_prefix("http://").context("an http URL")?;
    let mut stream = timeout(PACKET_LIMIT, TcpStream::connect(host)).await??;
    let request = format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    let mut answers = Vec::new();
    for begun in (0..count).step_by(TOGETHER) {
        let together = TOGETHER.min(count - begun);
        let (mut input, mut output) = stream.split();
        let requests = request.repeat(together);
        let send = async { anyhow::Ok(output.write_all(requests.as_bytes()).await?) };
        let receive = async {
            answers.clear();
            // Each response ends with the first packet's closing brace.
            while answers.windows(12).filter(|part| part == b"HTTP/1.1 200").count() < together
                || !answers.ends_with(b"}")
            {
                ensure!(input.read_buf(&mut answers).await? > 0, "the connection is closed");
                ensure!(
                    !answers.windows(12).any(|part| part.starts_with(b"HTTP/1.1 ") && part != b"HTTP/1.1 200"),
                    "refused"
                );
            }
            anyhow::Ok(())
        };
        timeout(PACKET_LIMIT, async { tokio::try_join!(send, receive) }).await.context("no answer")??;
    }
    Ok(())
}

//! A tunnel for a WebSocket: copies bytes between the client and the node that owns its session.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, poll_fn, select};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Maximum number of bytes per read.
const MAX_READ: usize = 16 * 1024;
/// A peer that accepts no bytes for this long is disconnected. The node that owns the session disconnects it after 10
/// s.
const WRITE_STALL_LIMIT: Duration = Duration::from_secs(15);
/// How long one direction continues after the other has ended.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(5);

/// Copies bytes in both directions until one end closes. Each side is a stream with the bytes that were read ahead from
/// it.
pub async fn run((mut client, client_ahead): (TcpStream, Bytes), (mut owner, owner_ahead): (TcpStream, Bytes)) {
    let (from_client, to_client) = client.split();
    let (from_owner, to_owner) = owner.split();
    let up = pin!(pump(client_ahead, from_client, to_owner));
    let down = pin!(pump(owner_ahead, from_owner, to_client));
    // After a clean end, the other direction continues for up to 5 s; after a failure, both end.
    let _ = match select(up, down).await {
        Either::Left((Ok(()), down)) => timeout(HALF_CLOSED_LIMIT, down).await,
        Either::Right((Ok(()), up)) => timeout(HALF_CLOSED_LIMIT, up).await,
        Either::Left((Err(_), _)) | Either::Right((Err(_), _)) => return,
    };
}

/// Copies one direction to its end, then closes the other side for writing.
async fn pump(first: Bytes, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    write(&mut to, &first).await?;
    // Even a short `first` keeps the whole buffer of the HTTP connection in memory.
    drop(first);
    while let Some(rest) = poll_fn(|context| copy_available(context, &mut from, &mut to)).await? {
        write(&mut to, &rest).await?;
    }
    to.shutdown().await
}

/// Copies available bytes. Pending when no bytes are available; returns the rest when the other side is full, and
/// `None` at the end. The buffer is on the stack, so an idle tunnel has no buffer.
fn copy_available<R, W>(context: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<Option<Box<[u8]>>>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let mut space = [MaybeUninit::uninit(); MAX_READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let written = match Pin::new(&mut *to).poll_write(context, read) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if written < read.len() {
            return Poll::Ready(Ok(Some(read[written..].into())));
        }
    }
}

/// Writes all bytes; fails when the peer accepts no bytes for [`WRITE_STALL_LIMIT`].
async fn write(to: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(WRITE_STALL_LIMIT, to.write(bytes)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};

    #[tokio::test]
    async fn bytes_keep_their_order_through_a_narrow_pipe() {
        let sent = (0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        let ((mut source, from), (to, mut sink)) = (duplex(1 << 20), duplex(777));
        let (first, rest) = sent.split_at(1000);
        let mut received = Vec::new();
        let reading = async {
            sink.read_to_end(&mut received).await.unwrap();
        };
        let writing = async {
            source.write_all(rest).await.unwrap();
            drop(source);
        };
        let (pumped, ..) = tokio::join!(pump(Bytes::copy_from_slice(first), from, to), writing, reading);
        pumped.unwrap();
        assert!(received == sent, "{} of {}", received.len(), sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_peer_is_disconnected() {
        let ((mut source, from), (to, _sink)) = (duplex(1 << 20), duplex(16));
        source.write_all(&[1; 1000]).await.unwrap();
        assert_eq!(pump(Bytes::new(), from, to).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

//! A client's connection: one that takes nothing for too long is broken.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::wire::{Wire, Writer};

/// How long a client may take nothing of an answer.
const STUCK: Duration = Duration::from_secs(60);

/// The stream of an HTTP connection; who takes an upgrade has the bare one.
pub struct Stream {
    // Dropped first: it looks at the socket before that is closed.
    writer: Writer,
    tcp: TcpStream,
    /// Runs while the client takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Around a bare stream.
    pub fn new(tcp: TcpStream) -> Self {
        Self { writer: Writer::new(&tcp), tcp, stuck: None }
    }

    /// What becomes of the answers that are written to it.
    pub fn wire(&self) -> &Arc<Wire> {
        self.writer.wire()
    }

    /// The bare stream.
    pub fn into_inner(self) -> TcpStream {
        self.tcp
    }

    fn taken(&mut self, context: &mut Context<'_>, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &taken {
            self.stuck = None;
            self.writer.wrote(*result.as_ref().unwrap_or(&0));
            return taken;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.taken(context, taken)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.tcp).poll_write_vectored(context, bytes);
        self.taken(context, taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has nothing to flush.
        self.writer.flushed();
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

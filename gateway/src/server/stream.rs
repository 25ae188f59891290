//! The stream of a client's connection. It fails when the client reads too slowly, and ends when the client exceeds the
//! time limits for a request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::arriving::{Arriving, Timeouts};
use super::refusal::{self, Refusal};
use confab_socketio::METRICS;
use confab_socketio::budget::Held;
use confab_socketio::net::wire::{Wire, Writer};

/// The time within which a client must read at least [`MIN_TAKEN`] bytes of a pending response.
const WRITE_STALL_LIMIT: Duration = Duration::from_secs(60);
/// Minimum number of bytes within [`WRITE_STALL_LIMIT`].
const MIN_TAKEN: usize = 32 * 1024;

/// The stream of an HTTP connection. An upgraded connection uses the TCP stream alone.
pub struct Stream {
    // Dropped first: it reads the state of the TCP socket before the TCP socket is closed.
    writer: Writer,
    tcp: TcpStream,
    stall_timer: StallTimer,
    arriving: Arriving,
    refusal: Refusal,
}

/// Expires when a client reads too slowly.
#[derive(Default)]
struct StallTimer {
    /// Runs while data is pending for the client.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that the client has read since the timer started.
    taken: usize,
}

impl StallTimer {
    fn took(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken >= MIN_TAKEN {
            self.timer = None;
        }
    }

    fn took_all(&mut self) {
        self.timer = None;
    }

    /// Called while the client reads no data. Ready when the client has read too slowly.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            self.taken = 0;
            Box::pin(sleep(WRITE_STALL_LIMIT))
        });
        timer.as_mut().poll(context)
    }
}

impl Stream {
    /// Encloses a TCP stream. `hold` creates the counter for its client.
    pub fn new(tcp: TcpStream, timeouts: Timeouts, hold: impl FnOnce(&Arc<Wire>) -> Option<Held>) -> Self {
        let writer = Writer::new(&tcp);
        let arriving = Arriving::new(hold(writer.wire()), timeouts);
        Self { writer, tcp, stall_timer: StallTimer::default(), arriving, refusal: Refusal::default() }
    }

    /// The state of the connection's requests and answers.
    pub fn wire(&self) -> &Arc<Wire> {
        self.writer.wire()
    }

    /// If the client has not acknowledged all data, lets the operating system discard it when the stream is closed.
    pub fn abandon(&self) {
        self.writer.abandon();
    }

    /// The TCP stream, for data that arrives after the last answer.
    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    pub fn into_inner(self) -> TcpStream {
        self.tcp
    }

    /// Whether an answer that begins now is hyper's own error response, because no request is in progress.
    fn is_own(&self) -> bool {
        !self.wire().requests.is_busy()
    }

    fn taken(&mut self, context: &mut Context<'_>, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &taken {
            let bytes = *result.as_ref().unwrap_or(&0);
            self.stall_timer.took(bytes);
            self.writer.wrote(bytes);
            return taken;
        }
        ready!(self.stall_timer.poll(context));
        METRICS.outbox_closes.hit("stuck");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, writer, arriving, refusal, .. } = self.get_mut();
        let (wire, before) = (writer.wire(), buffer.filled().len());
        if !wire.requests.is_half_closed() {
            match Pin::new(&mut *tcp).poll_read(context, buffer) {
                // A time limit ends the connection as a close by the client does.
                Poll::Pending => return arriving.poll_late(context, wire).map(Ok),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            let passed = arriving.read(&buffer.filled()[before..], wire);
            if passed == 0 || arriving.refused().is_some() {
                wire.requests.half_close();
            }
            if passed > 0 {
                buffer.set_filled(before + passed);
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        ready!(wire.requests.poll_end(context));
        match arriving.refused() {
            Some(status) if !wire.requests.is_busy() => {
                let mut tcp = Pin::new(tcp);
                refusal.poll(status, |bytes| tcp.as_mut().poll_write(context, bytes))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_own() {
            let Self { tcp, refusal, .. } = self.get_mut();
            let mut tcp = Pin::new(tcp);
            ready!(refusal.poll(refusal::status_of(bytes), |bytes| tcp.as_mut().poll_write(context, bytes)))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let taken = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.taken(context, taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_own() {
            let first = bytes.iter().find(|bytes| !bytes.is_empty()).map_or(&[][..], |bytes| bytes);
            return self.poll_write(context, first);
        }
        let taken = Pin::new(&mut self.tcp).poll_write_vectored(context, bytes);
        self.taken(context, taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP has nothing to flush.
        self.stall_timer.took_all();
        self.writer.flushed();
        if self.wire().requests.flushed() {
            self.arriving.idles();
        }
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    /// Whether the timer expires within 10 minutes for a client that reads `bytes` bytes every 10 s.
    async fn ends_with(bytes: usize, take: fn(&mut StallTimer, usize)) -> bool {
        let mut stall_timer = StallTimer::default();
        for _ in 0..60 {
            if timeout(Duration::ZERO, poll_fn(|context| stall_timer.poll(context))).await.is_ok() {
                return true;
            }
            advance(Duration::from_secs(10)).await;
            take(&mut stall_timer, bytes);
        }
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_too_slowly_is_closed() {
        assert!(ends_with(0, StallTimer::took).await);
        assert!(ends_with(1000, StallTimer::took).await);
        assert!(!ends_with(8000, StallTimer::took).await);
        // A small amount suffices when it is all pending data.
        assert!(!ends_with(1000, |stall_timer, _| stall_timer.took_all()).await);
    }
}

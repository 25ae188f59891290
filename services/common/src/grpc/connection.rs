//! Connections to a gRPC server, limited in number, with authenticated callers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::unfold;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use super::peer::Peer;
use super::security::{self, Authenticated, Security};
use crate::descriptors;
use crate::listen::Listener;
use crate::metrics::{LIMITS, REFUSED_PEERS};

/// Concurrent connections; each replica of a gateway or calling service has one. Further connections wait.
const MAX_CONNECTIONS: u64 = 4096;
const LIMIT: &str = "grpc_connections";
/// Time limit of a TLS handshake. The connection holds its permit meanwhile.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Shortest interval between two log lines about failed handshakes.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Time for handshakes in progress at shutdown. The server notifies its clients only after that.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// An accepted connection with its caller and its permit.
pub struct Connection {
    stream: Box<dyn security::Stream>,
    peer: Peer,
    /// When the certificate of the peer expires, if that is soon.
    expiry: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

/// A connection before its handshake.
struct Accepted {
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
}

/// Creates the permits, as many as the process's descriptors allow.
pub fn places() -> Arc<Semaphore> {
    LIMITS.exist(&[LIMIT]);
    Arc::new(Semaphore::new(descriptors::for_connections(descriptors::limit()).min(MAX_CONNECTIONS) as usize))
}

/// Yields the connections to a listener, each one after it has obtained a permit and authenticated itself.
pub fn accept(
    listener: Listener,
    places: Arc<Semaphore>,
    security: Security,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    // A slow handshake delays no other connection.
    permitted(listener, places)
        .map(move |accepted| authenticated(accepted, security.clone(), shutdown.clone()))
        .buffer_unordered(MAX_CONNECTIONS as usize)
        .filter_map(async |connection| connection)
}

fn permitted(listener: Listener, places: Arc<Semaphore>) -> impl Stream<Item = io::Result<Accepted>> {
    unfold((listener, places), async |(listener, places)| {
        if places.available_permits() == 0 {
            LIMITS.hit(LIMIT);
        }
        // A listener that shuts down while it waits for a permit must stop accepting clients.
        let permit = tokio::select! {
            biased;
            permit = places.clone().acquire_owned() => permit.ok()?,
            () = listener.close_at_shutdown() => return None,
        };
        let accepted = listener.accept().await?;
        let connection = accepted.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(Accepted { stream, permit })
        });
        Some((connection, (listener, places)))
    })
}

/// Returns the connection, or `None` when its handshake fails.
async fn authenticated(
    accepted: io::Result<Accepted>,
    security: Security,
    shutdown: CancellationToken,
) -> Option<io::Result<Connection>> {
    let Accepted { stream, permit } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return Some(Err(error)),
    };
    if !security.has_handshake() {
        return Some(Ok(Connection { stream: Box::new(stream), peer: Peer::any(), expiry: None, _permit: permit }));
    }
    let address = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let last = async {
        shutdown.cancelled().await;
        sleep(LAST_HANDSHAKES).await;
    };
    // A task of its own, because the computations of many handshakes take all processors.
    let handshake = tokio::spawn(async move { security.accept(stream).await });
    let handshake = timeout(HANDSHAKE_LIMIT, AbortOnDropHandle::new(handshake));
    let (reason, error) = tokio::select! {
        authenticated = handshake => match authenticated {
            Ok(Ok(Ok(Authenticated { stream, peer, time_left }))) => {
                let expiry = time_left.map(|left| Box::pin(sleep(left)));
                return Some(Ok(Connection { stream, peer, expiry, _permit: permit }));
            }
            Ok(Ok(Err(error))) => ("handshake", error.to_string()),
            Ok(Err(error)) => ("handshake", error.to_string()),
            Err(elapsed) => ("timeout", elapsed.to_string()),
        },
        () = last => return None,
    };
    REFUSED_PEERS.hit(reason);
    if is_due() {
        tracing::warn!(%address, %error, "the TLS handshake of a caller failed; more may follow within {LOG_EVERY:?}");
    } else {
        tracing::debug!(%address, %error, "the TLS handshake of a caller failed");
    }
    None
}

/// Returns whether a failed handshake may be logged now: any program that reaches the port can cause one.
fn is_due() -> bool {
    // Locked for a comparison, never across an await.
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock();
    let is_due = last.is_none_or(|last| last.elapsed() >= LOG_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(expiry) = &mut self.expiry
            && expiry.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::Error::other("the certificate of the caller has expired")));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::{Authority, eventually};

    #[tokio::test]
    async fn connections_above_the_limit_wait() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (socket.local_addr().unwrap(), CancellationToken::new());
        let (listener, places) = (Listener::new(socket, shutdown.clone()), Arc::new(Semaphore::new(2)));
        let mut connections = pin!(accept(listener, places, Security::default(), shutdown.clone()));
        let clients = [(); 4].map(|()| std::net::TcpStream::connect(address).unwrap());
        let first = connections.next().await.unwrap().unwrap();
        let second = connections.next().await.unwrap().unwrap();
        assert!(connections.next().now_or_never().is_none());
        drop(first);
        let third = connections.next().await.unwrap().unwrap();
        shutdown.cancel();
        assert!(connections.next().await.is_none(), "a server at its limit ends as well");
        drop((second, third, clients));
    }

    #[tokio::test]
    async fn stalled_handshake_holds_its_permit_until_it_is_cut() {
        let authority = Authority::new();
        let security = Security::open(&authority.calls("DNS:room.confab"), None).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (socket.local_addr().unwrap(), CancellationToken::new());
        // One permit is for the connection that the listener waits for.
        let (listener, places) = (Listener::new(socket, shutdown.clone()), Arc::new(Semaphore::new(2)));
        let connections = accept(listener, places.clone(), security, shutdown.clone());
        let accepting = tokio::spawn(connections.count());
        let stalled = std::net::TcpStream::connect(address).unwrap();
        eventually(|| places.available_permits() == 0).await;
        tokio::time::pause();
        tokio::time::advance(HANDSHAKE_LIMIT - Duration::from_secs(1)).await;
        assert_eq!(places.available_permits(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        eventually(|| places.available_permits() == 1).await;
        shutdown.cancel();
        assert_eq!(accepting.await.unwrap(), 0, "no connection was established");
        drop(stalled);
    }
}

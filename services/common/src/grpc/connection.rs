//! Connections to a gRPC server, limited in number.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::descriptors;
use crate::listen::Listener;
use crate::metrics::LIMITS;

/// Concurrent connections; each replica of a gateway or calling service has one. Further connections wait.
const MAX_CONNECTIONS: u64 = 4096;
const LIMIT: &str = "grpc_connections";

/// An accepted connection and its permit.
pub struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

/// Creates the permits, as many as the process's descriptors allow.
pub fn places() -> Arc<Semaphore> {
    LIMITS.exist(&[LIMIT]);
    Arc::new(Semaphore::new(descriptors::for_connections(descriptors::limit()).min(MAX_CONNECTIONS) as usize))
}

/// Yields the connections to a listener, each one after it has obtained a permit.
pub fn accept(listener: Listener, places: Arc<Semaphore>) -> impl Stream<Item = io::Result<Connection>> {
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
            Ok(Connection { stream, _permit: permit })
        });
        Some((connection, (listener, places)))
    })
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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

    use futures::{FutureExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn connections_above_the_limit_wait() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (socket.local_addr().unwrap(), CancellationToken::new());
        let mut connections = pin!(accept(Listener::new(socket, shutdown.clone()), Arc::new(Semaphore::new(2))));
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
}

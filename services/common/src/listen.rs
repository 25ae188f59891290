//! A listening socket that closes without resetting established connections.
//!
//! The system completes handshakes on its own, so a client may send its request before the server accepts the
//! connection. Closing the socket resets every connection that waits in the accept queue. A load balancer then cannot
//! determine whether the server executed the request, and must not repeat it. At shutdown a server therefore first
//! makes the system drop new SYNs, then accepts the established connections, and then closes the socket. A client whose
//! SYN was dropped repeats it after one second and is refused. The client connects to another server, since none of its
//! request was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Time for handshakes in progress at shutdown: a few round trips between a load balancer and its servers. Clients that
/// connect during this time wait one second instead of being refused at once.
const HANDSHAKE_LIMIT: Duration = Duration::from_millis(5);

/// Connections in the accept queue.
const BACKLOG: u32 = 128;

/// A port that is bound but not listening: clients are refused until the server can answer them.
pub struct Reserved(TcpSocket);

impl Reserved {
    /// Binds a port.
    ///
    /// # Errors
    /// When the address is in use, or is not an address of this machine.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of an earlier process may still linger on the port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket))
    }

    /// Listens on the port.
    ///
    /// # Errors
    /// When another process has started to listen on the port.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

/// A listening socket that accepts until shutdown.
pub struct Listener {
    socket: TcpListener,
    shutdown: CancellationToken,
    /// When the last handshakes are complete; set at shutdown.
    handshakes_complete: OnceLock<Instant>,
}

impl Listener {
    /// Accepts on a bound socket until shutdown.
    pub fn new(socket: TcpListener, shutdown: CancellationToken) -> Self {
        Self { socket, shutdown, handshakes_complete: OnceLock::new() }
    }

    /// Waits for the next connection. Returns `None` after the shutdown, once every established connection has been
    /// accepted.
    pub async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        if let Some(accepted) = self.shutdown.run_until_cancelled(self.socket.accept()).await {
            return Some(accepted);
        }
        match timeout_at(self.close(), self.socket.accept()).await {
            Ok(accepted) => Some(accepted),
            // Queries the system itself, because the runtime may not have seen the last connections yet.
            Err(_) => self.queued().transpose(),
        }
    }

    /// Waits for the shutdown. From then on no client is accepted, even while no task calls `accept`.
    pub async fn close_at_shutdown(&self) {
        self.shutdown.cancelled().await;
        self.close();
    }

    fn close(&self) -> Instant {
        *self.handshakes_complete.get_or_init(|| {
            if let Err(error) = drop_syns(&self.socket) {
                tracing::debug!(%error, "clients that connect now may see a reset");
            }
            Instant::now() + HANDSHAKE_LIMIT
        })
    }

    fn queued(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match SockRef::from(&self.socket).accept() {
            Ok((socket, peer)) => {
                socket.set_nonblocking(true)?;
                let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
                Ok(Some((TcpStream::from_std(socket.into())?, peer)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Makes the system drop connection attempts, and no other segments.
#[cfg(target_os = "linux")]
fn drop_syns(socket: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    /// Instructions of the classic packet filter (linux/filter.h). The filter sees each segment from its TCP header on.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// The offset of a segment's flags, and the flags of a handshake.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn drop_syns(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use futures::FutureExt;

    use super::*;

    async fn listening() -> (SocketAddr, CancellationToken, Listener) {
        let (socket, shutdown) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
        (socket.local_addr().unwrap(), shutdown.clone(), Listener::new(socket, shutdown))
    }

    async fn accepts(listener: &Listener, client: &Client) {
        let (_, peer) = listener.accept().await.unwrap().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn connections_unseen_by_the_runtime_are_accepted() {
        let (address, shutdown, listener) = listening().await;
        assert!(listener.accept().now_or_never().is_none());
        // No await here, so the runtime does not see these connections.
        let clients = [(); 3].map(|()| Client::connect(address).unwrap());
        shutdown.cancel();
        for client in &clients {
            accepts(&listener, client).await;
        }
        assert!(listener.accept().await.is_none());
        drop(listener);
        assert_eq!(Client::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn reserved_port_refuses_clients_and_other_servers() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let reserved = Reserved::new(loopback.parse().unwrap()).unwrap();
            let address = reserved.0.local_addr().unwrap();
            assert_eq!(Client::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let listener = reserved.listen().unwrap();
            assert_eq!(Reserved::new(address).err().unwrap().kind(), io::ErrorKind::AddrInUse);
            Client::connect(address).unwrap();
            drop(listener);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn no_connection_is_reset_at_shutdown() {
        let (address, shutdown, listener) = listening().await;
        let early = Client::connect(address).unwrap();
        shutdown.cancel();
        assert!(listener.close_at_shutdown().now_or_never().is_some());
        let late = Client::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        accepts(&listener, &early).await;
        assert!(listener.accept().await.is_none());
    }
}

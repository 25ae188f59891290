//! TLS connections to the replicas of a service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Tls;
use crate::grpc::role::Role;
use crate::metrics::REFUSED_PEERS;

/// Time limit of a TCP handshake.
const TCP_LIMIT: Duration = Duration::from_secs(1);
/// Time limit of a connection with its TLS handshake. A replica that starts may receive a thousand at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Bytes of a server's first frame that are read ahead.
const READ_AHEAD: usize = 256;

/// Connects to servers with one role.
#[derive(Clone)]
pub(in crate::grpc) struct Connector {
    pub tls: Arc<Tls>,
    pub role: Role,
}

type Stream = TokioIo<BufReader<TlsStream<TcpStream>>>;

impl Connector {
    /// Returns a channel to a replica. The connection is made on first use, with the identity that is current then.
    pub fn channel(&self, endpoint: Endpoint, address: SocketAddr) -> Channel {
        let (connector, reported) = (self.clone(), Arc::new(Reported::default()));
        // The time limit is inside the connector, so that exceeding it is recognised as a failure to connect.
        endpoint.connect_with_connector_lazy(service_fn(move |_| {
            let (connector, reported) = (connector.clone(), reported.clone());
            async move {
                let connected = timeout(CONNECT_LIMIT, connector.connect(address)).await;
                let connected = connected.unwrap_or_else(|elapsed| Err(elapsed.into()));
                reported.report(connector.role, address, connected.as_ref().err());
                connected
            }
        }))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let stream = timeout(TCP_LIMIT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let client = self.tls.current().client(self.role).map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(client)).connect(ServerName::from(address.ip()), stream).await?;
        let mut stream = BufReader::with_capacity(READ_AHEAD, tls);
        // A server rejects a client's certificate after the client's handshake is complete. Its first bytes prove that
        // it has accepted the certificate, so no call is sent before, and the caller knows that nothing was done.
        if stream.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(TokioIo::new(stream))
    }
}

/// The failure that was last logged, so that a repeated failure is logged once.
// Locked for a comparison, never across an await.
#[derive(Default)]
struct Reported(Mutex<Option<String>>);

impl Reported {
    fn report(&self, role: Role, address: SocketAddr, failure: Option<&io::Error>) {
        let refused = failure.and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(_)) = refused {
            REFUSED_PEERS.hit("server");
        }
        // Other failures are usual: a replica that starts or shuts down.
        let text = refused.map(ToString::to_string);
        if *self.0.lock() != text {
            if let Some(error) = &text {
                tracing::warn!(role = role.name(), %address, %error, "cannot connect with TLS");
            }
            *self.0.lock() = text;
        }
    }
}

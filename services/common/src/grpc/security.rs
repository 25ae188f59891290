//! How programs authenticate each other over gRPC: with TLS by the settings, or not at all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::peer::Peer;
use super::role::Role;
use super::tls::{Connector, Tls, keep_current};
use crate::config::{CallsConfig, TLS_FILES, check_listener};
use crate::metrics::REFUSED_PEERS;

/// The first byte of a TLS connection: the type of a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// How a program accepts and makes calls. Without settings it has no certificate, and its services listen on loopback
/// only. Cheap to clone.
#[derive(Clone, Default)]
pub struct Security {
    tls: Option<Arc<Tls>>,
    /// Whether unauthenticated callers are accepted.
    insecure: bool,
}

/// A connection to a server, as bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An accepted connection.
pub(super) struct Authenticated {
    pub stream: Box<dyn Stream>,
    pub peer: Peer,
    /// For how long the certificate of the peer stays valid, if that is less than the maximum age of a connection.
    pub time_left: Option<Duration>,
}

impl Security {
    /// Reads the files in the settings. `program` is the role of this program; `None` for the embedded program.
    ///
    /// # Errors
    /// When the settings or the files cannot be used.
    pub fn open(config: &CallsConfig, program: Option<Role>) -> anyhow::Result<Self> {
        Ok(Self { tls: Tls::open(config, program)?, insecure: config.insecure_grpc })
    }

    /// Starts a task that uses changed files for new connections.
    pub fn watch_files(&self) {
        if let Some(tls) = &self.tls {
            tokio::spawn(keep_current(Arc::downgrade(tls)));
        }
    }

    /// Checks the address of a service's listener.
    ///
    /// # Errors
    /// When the address is not on loopback, there is no certificate, and the settings do not allow that.
    pub(super) fn check_listener(&self, listen: SocketAddr) -> anyhow::Result<()> {
        check_listener(listen, self.tls.is_some(), self.insecure)
    }

    /// Logs how a service accepts calls.
    pub(super) fn log_listener(&self, listen: SocketAddr) {
        LazyLock::force(&REFUSED_PEERS);
        tracing::info!(%listen, tls = self.tls.is_some(), "serving gRPC");
        if self.insecure {
            tracing::warn!("CONFAB_INSECURE_GRPC=true: any program that reaches {listen} may make every call");
        }
    }

    /// Returns the TLS connector for a service with this role, for `https://`, or `None` for `http://`.
    ///
    /// # Errors
    /// When the URL requires a certificate and there is none.
    pub(super) fn connector(&self, role: Role, is_https: bool) -> anyhow::Result<Option<Connector>> {
        LazyLock::force(&REFUSED_PEERS);
        if !is_https {
            return Ok(None);
        }
        let tls = self.tls.clone().with_context(|| format!("https:// needs {TLS_FILES}"))?;
        Ok(Some(Connector { tls, role }))
    }

    /// Returns whether connections begin with a handshake.
    pub(super) fn has_handshake(&self) -> bool {
        self.tls.is_some()
    }

    /// Authenticates the caller of an accepted connection.
    ///
    /// # Errors
    /// When the handshake fails.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Authenticated> {
        match &self.tls {
            Some(tls) if !self.insecure || begins_tls(&stream).await? => {
                let (stream, peer, time_left) = tls.accept(stream).await?;
                Ok(Authenticated { stream: Box::new(stream), peer, time_left })
            }
            _ => Ok(Authenticated { stream: Box::new(stream), peer: Peer::any(), time_left: None }),
        }
    }
}

async fn begins_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    Ok(first == [HANDSHAKE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_needs_the_files() {
        let error = Security::default().connector(Role::Room, true).err().unwrap().to_string();
        assert_eq!(error, format!("https:// needs {TLS_FILES}"));
        assert!(Security::default().connector(Role::Room, false).unwrap().is_none());
        assert!(Security::default().check_listener(([10, 1, 2, 3], 1).into()).is_err());
    }
}

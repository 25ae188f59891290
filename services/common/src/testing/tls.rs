//! A private certificate authority, and servers behind TLS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::config::CallsConfig;

/// The first message of a Postgres client that requests TLS: its length and 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The serial number of the next certificate.
static SERIAL: AtomicU32 = AtomicU32::new(1);

/// A certificate authority for one test.
pub struct Authority(PathBuf);

impl Authority {
    /// Creates an authority with `openssl`.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn new() -> Self {
        let directory = super::directory();
        openssl(
            &directory,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout ca.key -out ca.pem -days 2 -subj /CN=CA",
        );
        Self(directory)
    }

    /// Returns the path of the authority's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Issues a certificate for names such as `DNS:localhost` or `IP:127.0.0.1,URI:spiffe://a/b`. Returns the paths of
    /// the certificate and of its key.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn issue(&self, names: &str) -> (PathBuf, PathBuf) {
        self.issue_for(names, 2)
    }

    /// Issues a certificate that is valid for this number of days; 0: until the end of the current second.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn issue_for(&self, names: &str, days: u32) -> (PathBuf, PathBuf) {
        // Files of its own for each certificate: tests share an authority.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let (file, certificate, key) = (format!("{serial}"), format!("{serial}.pem"), format!("{serial}.key"));
        openssl(
            &self.0,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout {key} -out {file}.csr -subj /CN=server \
                 -addext subjectAltName={names} -addext basicConstraints=CA:FALSE"
            ),
        );
        openssl(
            &self.0,
            &format!(
                "x509 -req -in {file}.csr -out {certificate} -CA ca.pem -CAkey ca.key -set_serial {serial} -days {days} \
                 -copy_extensions copyall"
            ),
        );
        (self.0.join(certificate), self.0.join(key))
    }

    /// Returns the settings of a program with a certificate for these names.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn calls(&self, names: &str) -> CallsConfig {
        let (certificate, key) = self.issue(names);
        CallsConfig {
            tls_cert_file: Some(certificate),
            tls_key_file: Some(key),
            tls_ca_file: Some(self.certificate()),
            ..CallsConfig::default()
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A TLS proxy in front of a server on this machine that has no TLS.
pub struct Front {
    port: u16,
}

impl Front {
    /// Starts a proxy with this certificate for the server at `host:port`. Before TLS, it answers the TLS request of
    /// Postgres clients.
    ///
    /// # Panics
    /// When a file cannot be read or no port is free.
    pub async fn of(server: &str, (certificate, key): &(PathBuf, PathBuf)) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let acceptor =
            TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("a pair")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (port, server) = (listener.local_addr().expect("its number").port(), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(proxy(client, acceptor.clone(), server.clone()));
            }
        });
        Self { port }
    }

    /// The proxy's port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn proxy(mut client: TcpStream, acceptor: TlsAcceptor, server: String) -> std::io::Result<()> {
    let mut first = [0; 8];
    if client.peek(&mut first).await? == first.len() && first == SSL_REQUEST {
        client.read_exact(&mut first).await?;
        client.write_all(b"S").await?;
    }
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut acceptor.accept(client).await?, &mut server).await.map(drop)
}

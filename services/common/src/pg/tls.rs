//! TLS to Postgres.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};

use crate::trust::{Authorities, identity};

pub(super) static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(super) static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What is verified of a server's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing, as libpq does by default: this protects against eavesdropping, not against an impostor.
    #[default]
    Nothing,
    /// The issuing authority, for a server that is reached under another name.
    Authority,
    /// The issuing authority and the name.
    Name,
}

/// The TLS settings of connections.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub verify: Verify,
    /// `None`: the authorities of the process.
    pub authorities: Option<Authorities>,
    /// The files of the client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub versions: &'static [&'static SupportedProtocolVersion],
}

impl Default for Tls {
    fn default() -> Self {
        Self { verify: Verify::default(), authorities: None, identity: None, versions: rustls::DEFAULT_VERSIONS }
    }
}

impl Tls {
    /// Builds the client configuration.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn config(&self) -> anyhow::Result<ClientConfig> {
        let roots = self.authorities.as_ref().unwrap_or_else(|| Authorities::own()).roots();
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions)?;
        let builder = match self.verify {
            Verify::Name => builder.with_root_certificates(roots),
            verify => {
                let inner = match verify {
                    Verify::Nothing => None,
                    _ => Some(WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?),
                };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { inner, provider }))
            }
        };
        let Some((certificate, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let (chain, key) = identity(certificate, key)?;
        builder.with_client_auth_cert(chain, key).context("its options `sslcert` and `sslkey` do not belong together")
    }
}

/// Verifies that the server has the key of its certificate, and with `inner` also the issuer, but not the name.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is verified last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

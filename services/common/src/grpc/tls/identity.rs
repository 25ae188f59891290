//! The certificate of this program and the authorities that it trusts, from files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::verify::RoleVerifier;
use crate::config::TlsFiles;
use crate::grpc::names::PeerNames;
use crate::grpc::role::{Role, Roles};
use crate::trust::Authorities;

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// The name of HTTP/2 in TLS handshakes.
const HTTP2: &[u8] = b"h2";
/// The longest time for which validity is computed, in days.
const MAX_DAYS: u64 = 365;

/// The contents of the three files.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Contents {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read. The message names its setting.
    pub fn read(files: &TlsFiles) -> anyhow::Result<Self> {
        let read = |setting: &str, file: &Path| {
            fs::read(file).with_context(|| format!("{setting}: cannot read {}", file.display()))
        };
        Ok(Self {
            certificate: read("CONFAB_TLS_CERT_FILE", &files.certificate)?,
            key: read("CONFAB_TLS_KEY_FILE", &files.key)?,
            authorities: read("CONFAB_TLS_CA_FILE", &files.authorities)?,
        })
    }

    /// Returns a digest by which a change is detected, so that no copy of the key is needed.
    pub fn digest(&self) -> [u8; 32] {
        let parts = [&self.certificate, &self.key, &self.authorities].map(|part| digest(&SHA256, part));
        let whole = parts.iter().flat_map(|part| part.as_ref()).copied().collect::<Vec<_>>();
        digest(&SHA256, &whole).as_ref().try_into().unwrap_or_default()
    }
}

/// What a program needs to accept and make TLS connections.
#[derive(Debug)]
pub(super) struct Identity {
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// Verifies the certificates of callers.
    callers: Arc<dyn ClientCertVerifier>,
    /// The names of other programs, in the trust domains of the own certificate.
    names: PeerNames,
    pub server: Arc<ServerConfig>,
    pub roles: Roles,
}

impl Identity {
    /// Parses the contents of the files.
    ///
    /// # Errors
    /// When a file has no usable content, or the files do not belong together.
    pub fn parse(contents: &Contents, files: &TlsFiles, names: &PeerNames) -> anyhow::Result<Self> {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let provider = Arc::new(default_provider());
        let chain = CertificateDer::pem_slice_iter(&contents.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain
            .ok()
            .filter(|chain| !chain.is_empty())
            .with_context(|| format!("CONFAB_TLS_CERT_FILE: {certificate} contains no certificate in PEM"))?;
        let names = chain.first().map(|first| names.in_domains_of(first)).transpose();
        let names = names.with_context(|| format!("CONFAB_TLS_CERT_FILE: {certificate} is malformed"))?;
        let names = names.unwrap_or_default();
        let roles = chain.first().map(|first| names.roles(first)).transpose();
        let roles = roles.with_context(|| format!("CONFAB_TLS_CERT_FILE: {certificate} is malformed"))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .with_context(|| format!("CONFAB_TLS_KEY_FILE: {key} contains no unencrypted key in PEM"))?;
        let own = CertifiedKey::from_der(chain, key, &provider)
            .context("CONFAB_TLS_CERT_FILE and CONFAB_TLS_KEY_FILE do not belong together")?;
        let own = Arc::new(own);
        let roots =
            Authorities::parse(&contents.authorities, &files.authorities).context("CONFAB_TLS_CA_FILE")?.roots();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone())));
        server.alpn_protocols = vec![HTTP2.into()];
        // A resumed session would skip the verification of a certificate that has expired meanwhile.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { own, roots, callers: verifier, names, server: Arc::new(server), roles: roles.unwrap_or_default() })
    }

    /// Checks whether a program can use the certificate: services accept its calls, and callers accept it as a service.
    ///
    /// # Errors
    /// When the certificate has another role, or none.
    pub fn check_role(&self, program: Option<Role>) -> anyhow::Result<()> {
        let fits = program.map_or(!self.roles.is_empty(), |role| self.roles.contains(role));
        let needed = program.map_or("a role".to_owned(), |role| format!("the role {}", role.name()));
        ensure!(
            fits,
            "the certificate in CONFAB_TLS_CERT_FILE must have {needed}; its roles are: {} (CONFAB_PEERS maps names in \
             certificates to roles)",
            self.roles
        );
        Ok(())
    }

    /// Returns the configuration of a client that calls servers with this role.
    ///
    /// # Errors
    /// Never, with the provider of this build.
    pub fn client(&self, role: Role) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = RoleVerifier { role, names: self.names.clone(), roots: self.roots.clone(), algorithms };
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        client.alpn_protocols = vec![HTTP2.into()];
        client.resumption = Resumption::disabled();
        Ok(client)
    }

    /// Returns the roles of a caller's certificate, which is verified already; none if it is malformed.
    pub fn roles_of(&self, certificate: &CertificateDer<'_>) -> Roles {
        self.names.roles(certificate).unwrap_or_default()
    }

    /// Returns for how long a verified certificate of a caller stays valid, to the second, if that is less than `most`.
    pub fn time_left(&self, chain: &[CertificateDer<'_>], most: Duration) -> Option<Duration> {
        let (certificate, intermediates) = chain.split_first()?;
        let now = UnixTime::now().as_secs();
        let is_valid = |after: u64| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(now + after));
            self.callers.verify_client_cert(certificate, intermediates, time).is_ok()
        };
        if is_valid(most.as_secs()) {
            return None;
        }
        // The first second in which it is not valid, by bisection.
        let (mut last, mut beyond) = (0, most.as_secs());
        while beyond - last > 1 {
            let middle = (last + beyond) / 2;
            if is_valid(middle) { last = middle } else { beyond = middle }
        }
        Some(Duration::from_secs(beyond))
    }

    /// Returns for how many days other programs with the same authorities will accept the certificate, at most 365.
    /// `None`: they do not accept it now.
    pub fn days_left(&self) -> Option<u64> {
        let accepted = |days: u64| {
            let time = Duration::from_secs(UnixTime::now().as_secs() + days * 24 * 60 * 60);
            let (first, intermediates) = self.own.cert.split_first()?;
            let algorithms = default_provider().signature_verification_algorithms.all;
            let time = UnixTime::since_unix_epoch(time);
            let parsed = ParsedCertificate::try_from(first).ok()?;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, time, algorithms).ok()
        };
        accepted(0)?;
        // The last day on which it is accepted, by bisection.
        let (mut last, mut beyond) = (0, MAX_DAYS + 1);
        while beyond - last > 1 {
            let middle = (last + beyond) / 2;
            if accepted(middle).is_some() { last = middle } else { beyond = middle }
        }
        Some(last)
    }
}

//! The certificate authorities that TLS connections trust: the system's authorities, and private authorities from a
//! file.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

static OWN: OnceLock<Authorities> = OnceLock::new();

/// Certificate authorities, in the forms that the TLS libraries need.
#[derive(Debug, Clone)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    pem: Arc<str>,
}

impl Authorities {
    /// The authorities of this process: the system's authorities, and those added.
    pub fn own() -> &'static Self {
        OWN.get_or_init(|| Self::of(rustls_native_certs::load_native_certs().certs))
    }

    /// Adds the authorities in a PEM file to those of this process. Must be called before the first connection.
    ///
    /// # Errors
    /// When the file cannot be read or has no valid certificate.
    pub fn add(file: &Path) -> anyhow::Result<()> {
        let mut certificates = read(file)?;
        certificates.extend(rustls_native_certs::load_native_certs().certs);
        ensure!(OWN.set(Self::of(certificates)).is_ok(), "authorities must be added before the first connection");
        Ok(())
    }

    /// Reads the authorities in a PEM file, without the system's authorities.
    ///
    /// # Errors
    /// When the file cannot be read or has no valid certificate.
    pub fn in_file(file: &Path) -> anyhow::Result<Self> {
        read(file).map(Self::of)
    }

    /// Parses the content of a PEM file, without the system's authorities.
    ///
    /// # Errors
    /// When the content has no valid certificate. The message names the file.
    pub fn parse(content: &[u8], file: &Path) -> anyhow::Result<Self> {
        parse(content, file).map(Self::of)
    }

    /// Keeps the certificates that can be used; a system's store may contain others.
    fn of(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        let mut pem = String::new();
        for certificate in certificates {
            let text = BASE64_STANDARD.encode(&certificate);
            if roots.add(certificate).is_ok() {
                pem += &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            }
        }
        Self { roots: Arc::new(roots), pem: pem.into() }
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// Reads a client certificate and its key from the files that the options `sslcert` and `sslkey` of a URL name.
///
/// # Errors
/// When a file cannot be used. The message names the option.
pub(crate) fn identity(
    certificate: &Path,
    key: &Path,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain
        .with_context(|| format!("its option `sslcert`: {} is not a certificate in PEM", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("its option `sslkey`: {} is not an unencrypted key in PEM", key.display()))?;
    Ok((chain, key))
}

fn read(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&content, file)
}

fn parse(content: &[u8], file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = file.display();
    let found = CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    let certificates = found
        .ok()
        .filter(|found| !found.is_empty())
        .with_context(|| format!("{path} contains no certificates in PEM"))?;
    for (at, certificate) in certificates.iter().enumerate() {
        let valid = RootCertStore::empty().add(certificate.clone());
        valid.with_context(|| format!("certificate {} in {path} is not a certificate of an authority", at + 1))?;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_without_authorities() {
        let directory = crate::testing::directory();
        for (name, content) in [
            ("empty", ""),
            ("text", "hello"),
            ("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            let file = directory.join(name);
            std::fs::write(&file, content).unwrap();
            let error = format!("{:#}", Authorities::in_file(&file).err().unwrap());
            assert!(error.contains(file.to_str().unwrap()), "{error}");
        }
        assert!(Authorities::in_file(&directory.join("missing")).err().unwrap().to_string().starts_with("cannot read"));
    }
}

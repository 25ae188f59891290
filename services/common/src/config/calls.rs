//! The settings of calls between programs.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::ensure;

use crate::grpc::PeerNames;

/// The settings of the files for TLS, in messages.
pub(crate) const TLS_FILES: &str = "CONFAB_TLS_CERT_FILE, CONFAB_TLS_KEY_FILE and CONFAB_TLS_CA_FILE";

/// Settings of calls between programs
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Calls between programs")]
pub struct CallsConfig {
    /// PEM file of this program's certificate for gRPC, with intermediate certificates after it. Its name gives the
    /// program its role, see CONFAB_PEERS. This file, CONFAB_TLS_KEY_FILE and CONFAB_TLS_CA_FILE belong together: with
    /// them, services accept only callers with a certificate, and URLs of services begin with `https://`. Changed files
    /// are used within 10 s
    #[arg(long, env = "CONFAB_TLS_CERT_FILE", value_name = "PATH")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of the key of the certificate in CONFAB_TLS_CERT_FILE
    #[arg(long, env = "CONFAB_TLS_KEY_FILE", value_name = "PATH")]
    pub tls_key_file: Option<PathBuf>,
    /// PEM file of the certificate authorities that issue the programs' certificates
    #[arg(long, env = "CONFAB_TLS_CA_FILE", value_name = "PATH")]
    pub tls_ca_file: Option<PathBuf>,
    /// Names in certificates and their roles, `role=name`, separated by commas. A role is gateway, auth, room, message
    /// or file, and a name a DNS name or a URI of the certificate. A role that is listed here has only the names listed
    /// [default: for each role the DNS name `<role>.confab`, and SPIFFE ids that end in `/<role>` or `/confab-<role>` in
    /// the trust domain of the program's own certificate]
    #[arg(long, env = "CONFAB_PEERS", value_name = "NAMES", value_parser = PeerNames::parse)]
    pub peers: Option<PeerNames>,
    /// Allow a service to listen beyond loopback without a certificate, and a service with a certificate to accept
    /// callers without TLS: any program that reaches the port can then read all messages and act for any user
    #[arg(long, env = "CONFAB_INSECURE_GRPC", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub insecure_grpc: bool,
}

/// The paths of the files for TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authorities: PathBuf,
}

impl CallsConfig {
    /// Returns the files for TLS, if they are set.
    ///
    /// # Errors
    /// When some of them are set and others are not.
    pub fn files(&self) -> anyhow::Result<Option<TlsFiles>> {
        let files = [
            ("CONFAB_TLS_CERT_FILE", &self.tls_cert_file),
            ("CONFAB_TLS_KEY_FILE", &self.tls_key_file),
            ("CONFAB_TLS_CA_FILE", &self.tls_ca_file),
        ];
        let missing = files.iter().filter(|(_, file)| file.is_none()).map(|(name, _)| *name).collect::<Vec<_>>();
        ensure!(
            missing.is_empty() || missing.len() == files.len(),
            "TLS between programs needs three files; also set {}",
            missing.join(" and ")
        );
        let [certificate, key, authorities] = files.map(|(_, file)| file.clone());
        Ok(certificate.zip(key).zip(authorities).map(|((certificate, key), authorities)| TlsFiles {
            certificate,
            key,
            authorities,
        }))
    }

    /// Checks the address of a service's listener.
    ///
    /// # Errors
    /// When the address is not on loopback, there is no certificate, and the settings do not allow that.
    pub fn check_listener(&self, listen: SocketAddr) -> anyhow::Result<()> {
        check_listener(listen, self.files()?.is_some(), self.insecure_grpc)
    }
}

pub(crate) fn check_listener(listen: SocketAddr, has_certificate: bool, insecure: bool) -> anyhow::Result<()> {
    ensure!(
        has_certificate || insecure || listen.ip().to_canonical().is_loopback(),
        "CONFAB_LISTEN is {listen}, beyond this machine, but {TLS_FILES} are not set: any program that reaches the port \
         could read all messages and act for any user. Set them, listen on 127.0.0.1, or set CONFAB_INSECURE_GRPC=true"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_or_none() {
        let config = |cert: bool, key: bool, ca: bool| {
            let file = |is_set: bool| is_set.then(|| PathBuf::from("x"));
            CallsConfig {
                tls_cert_file: file(cert),
                tls_key_file: file(key),
                tls_ca_file: file(ca),
                ..Default::default()
            }
        };
        assert!(config(false, false, false).files().unwrap().is_none());
        assert!(config(true, true, true).files().unwrap().is_some());
        for (cert, key, ca, missing) in [
            (true, true, false, "; also set CONFAB_TLS_CA_FILE"),
            (false, true, false, "; also set CONFAB_TLS_CERT_FILE and CONFAB_TLS_CA_FILE"),
        ] {
            let error = config(cert, key, ca).files().unwrap_err().to_string();
            assert!(error.ends_with(missing), "{error}");
        }
    }

    #[test]
    fn listener_beyond_loopback_needs_a_certificate() {
        for loopback in ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(CallsConfig::default().check_listener(loopback.parse().unwrap()).is_ok(), "{loopback}");
        }
        let insecure = CallsConfig { insecure_grpc: true, ..CallsConfig::default() };
        for beyond in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1"].map(|address| address.parse().unwrap()) {
            let error = CallsConfig::default().check_listener(beyond).unwrap_err().to_string();
            assert!(error.contains(TLS_FILES) && error.ends_with("CONFAB_INSECURE_GRPC=true"), "{error}");
            assert!(insecure.check_listener(beyond).is_ok());
        }
    }
}

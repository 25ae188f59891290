//! The options of a URL of Redis that name certificates. They have the names that they have in URLs of Postgres.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use percent_encoding::percent_decode_str;
use redis::{ClientTlsConfig, TlsCertificates};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;

use crate::trust::{Authorities, identity};

/// Takes the options `sslrootcert`, `sslcert` and `sslkey` out of the options of a URL, and reads the files. Returns
/// the certificates and the other options.
///
/// # Errors
/// When a file cannot be used, or the URL is without TLS. The message names the option, and no other part of the URL.
pub(super) fn take(tls: bool, options: &str) -> anyhow::Result<(TlsCertificates, String)> {
    let (mut authorities, mut certificate, mut key, mut others) = (None, None, None, Vec::new());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let file = match name {
            "sslrootcert" => &mut authorities,
            "sslcert" => &mut certificate,
            "sslkey" => &mut key,
            _ => {
                others.push(option);
                continue;
            }
        };
        ensure!(tls, "its option `{name}` needs TLS: the URL must begin with rediss://");
        let path = percent_decode_str(value).decode_utf8().ok();
        *file = Some(PathBuf::from(&*path.with_context(|| format!("its option `{name}` is not UTF-8"))?));
    }
    let root_cert = match authorities {
        _ if !tls => None,
        Some(file) if file.as_os_str() != "system" => {
            Some(Authorities::in_file(&file).context("its option `sslrootcert`")?.pem().into())
        }
        _ => Some(Authorities::own().pem().into()),
    };
    let client_tls = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let (chain, secret) = identity(&certificate, &key)?;
            CertifiedKey::from_der(chain, secret, &default_provider())
                .context("its options `sslcert` and `sslkey` do not belong together")?;
            Some(ClientTlsConfig { client_cert: fs::read(certificate)?, client_key: fs::read(key)? })
        }
        _ => bail!("its options `sslcert` and `sslkey` require each other"),
    };
    Ok((TlsCertificates { client_tls, root_cert }, others.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn files_are_read_and_other_options_stay() {
        let authority = Authority::new();
        let (certificate, key) = authority.issue("DNS:client");
        let root = authority.certificate();
        let options = format!(
            "protocol=resp3&sslrootcert={}&sslcert={}&sslkey={}&x=y",
            root.display().to_string().replace('/', "%2F"),
            certificate.display(),
            key.display()
        );
        let (certificates, others) = take(true, &options).unwrap();
        assert_eq!(others, "protocol=resp3&x=y");
        let own = String::from_utf8(certificates.root_cert.unwrap()).unwrap();
        assert_eq!(own.matches("BEGIN CERTIFICATE").count(), 1, "only the authority in the file");
        assert_eq!(certificates.client_tls.unwrap().client_key, fs::read(&key).unwrap());

        let (other, _) = Authority::new().issue("DNS:client");
        let refusal = |tls: bool, options: String| format!("{:#}", take(tls, &options).err().unwrap());
        for (tls, options, why) in [
            (false, format!("sslrootcert={}", root.display()), "needs TLS: the URL must begin with rediss://"),
            (true, "sslrootcert=/nowhere/ca.pem".into(), "its option `sslrootcert`: cannot read /nowhere/ca.pem"),
            (true, format!("sslcert={}", certificate.display()), "`sslcert` and `sslkey` require each other"),
            (true, format!("sslcert=/nowhere&sslkey={}", key.display()), "its option `sslcert`: /nowhere is not"),
            (true, format!("sslcert={0}&sslkey={0}", certificate.display()), "its option `sslkey`: "),
            (true, format!("sslcert={}&sslkey={}", other.display(), key.display()), "do not belong together"),
            (true, "sslkey=%FF".into(), "its option `sslkey` is not UTF-8"),
        ] {
            let error = refusal(tls, options);
            assert!(error.contains(why), "{error}");
        }
    }
}

//! Where the keys of an issuer are.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use tokio::time::timeout;

use super::fetch::Fetcher;

/// Most bytes of a key set or a key file.
pub const MAX_BYTES: usize = 64 * 1024;
/// The time limit for reading the keys once, from the look-up of the name to the last byte.
pub const READ_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The URL of a JSON Web Key Set.
    Url(Uri),
    File(PathBuf),
}

impl Source {
    /// Parses the URL of a key set.
    ///
    /// # Errors
    /// When it is not a URL with `https`, or with `http` for this machine.
    pub fn url(text: &str) -> anyhow::Result<Self> {
        let url = text.parse::<Uri>().ok().filter(|url| url.scheme().is_some());
        let url = url.context("must be a URL, such as https://id.example.com/.well-known/jwks.json")?;
        let (host, authority) = (url.host().unwrap_or_default(), url.authority().map_or("", |whole| whole.as_str()));
        ensure!(!host.is_empty(), "must name a host");
        ensure!(!authority.contains('@'), "must not contain a user or a password");
        ensure!(!text.contains('#'), "must not contain a fragment");
        match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP && is_loopback(host) => {}
            Some(scheme) if *scheme == Scheme::HTTP => {
                bail!("must begin with https://; http:// is allowed for localhost, 127.0.0.1 and [::1] only")
            }
            _ => bail!("must begin with https://"),
        }
        Ok(Self::Url(url))
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// When they cannot be read within 5 s, or are larger than 64 KiB.
    pub async fn read(&self, fetcher: Option<&Arc<Fetcher>>) -> anyhow::Result<Bytes> {
        let reading = async {
            match self {
                Self::Url(url) => fetcher.context("there is no HTTP client")?.get(url, MAX_BYTES).await,
                Self::File(path) => {
                    let path = path.clone();
                    tokio::task::spawn_blocking(move || read_file(&path)).await?
                }
            }
        };
        timeout(READ_LIMIT, reading).await.unwrap_or_else(|_| bail!("there is no complete answer after {READ_LIMIT:?}"))
    }
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read, or is larger than 64 KiB.
pub fn read_file(path: &Path) -> anyhow::Result<Bytes> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(content.len() <= MAX_BYTES, "{} has more than {} KiB", path.display(), MAX_BYTES / 1024);
    Ok(content.into())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_tls() {
        for good in [
            "https://id.example.com/jwks",
            "https://id.example.com:8443/a?b=c",
            "HTTPS://10.0.0.1/",
            "http://localhost:1/jwks",
            "http://LOCALHOST/",
            "http://127.0.0.1:1/",
            "http://127.9.9.9/",
            "http://[::1]:1/",
        ] {
            assert!(Source::url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "jwks.json",
            "/jwks",
            "id.example.com",
            "id.example.com:443",
            "http://id.example.com/",
            "http://localhost.example.com/",
            "http://127.0.0.1.example.com/",
            "http://10.0.0.1/",
            "http://[::2]/",
            "ftp://localhost/",
            "file:///etc/keys",
            "https:///jwks",
            "https://user:password@id.example.com/",
            "https://id.example.com/#keys",
            "https://id example.com/",
        ] {
            assert!(Source::url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn large_and_missing_files_are_rejected() {
        let path = crate::testing::directory().join("keys");
        assert!(read_file(&path).unwrap_err().to_string().starts_with("cannot read "));
        std::fs::write(&path, vec![b'x'; MAX_BYTES]).unwrap();
        assert_eq!(read_file(&path).unwrap().len(), MAX_BYTES);
        std::fs::write(&path, vec![b'x'; MAX_BYTES + 1]).unwrap();
        assert!(read_file(&path).unwrap_err().to_string().ends_with(" has more than 64 KiB"));
    }
}

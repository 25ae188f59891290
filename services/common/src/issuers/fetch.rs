//! Fetches key sets over HTTP.

use std::sync::Arc;

use anyhow::{anyhow, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::trust::Authorities;

/// Most bytes of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// An HTTP client that follows no redirect and trusts the authorities of the process.
pub struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Fetcher {
    /// Creates the client.
    ///
    /// # Errors
    /// When the TLS library rejects its settings.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Authorities::own().roots())
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let mut client = Client::builder(TokioExecutor::new());
        // Fetches are rare: no connection is kept.
        client.pool_max_idle_per_host(0).http1_max_buf_size(MAX_HEAD);
        Ok(Arc::new(Self(client.build(connector))))
    }

    /// Fetches a document of at most `max_bytes`.
    ///
    /// # Errors
    /// When there is no answer, its status is not 200, or it is larger.
    pub async fn get(&self, url: &Uri, max_bytes: usize) -> anyhow::Result<Bytes> {
        let request = Request::get(url.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("confab/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())?;
        let answer = self.0.request(request).await.map_err(|error| anyhow!("{}", Causes(&error)))?;
        let status = answer.status();
        ensure!(!status.is_redirection(), "the server answers {status}, and redirects are not followed");
        ensure!(status == StatusCode::OK, "the server answers {status}");
        let body = Limited::new(answer.into_body(), max_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                anyhow!("the answer has more than {} KiB", max_bytes / 1024)
            } else {
                anyhow!("the answer breaks off: {}", Causes(&*error))
            }
        })?;
        Ok(body.to_bytes())
    }
}

/// An error with its causes: the error of the client alone only says "client error (Connect)".
struct Causes<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

//! The public pages: the OpenAPI and AsyncAPI documents, Swagger UI at `/docs`, and a welcome page at `/`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
    VARY,
};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use confab_common::{Error, Result};
use flate2::read::GzDecoder;
use tokio::sync::OnceCell;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::App;
use crate::problem::Problem;
use confab_socketio::net::SharedBody;

/// The documents change only with a new version of the gateway.
const CACHED: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=60");

/// Allows the scripts of this server, the styles and images that they insert into the page, and requests to this
/// server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Allows the style sheet within the page.
const WELCOME_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'";
const ICON: &str = include_str!("docs/favicon.svg");

/// The files of Swagger UI that the page loads.
const FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];
/// The gateway's own files beside them: name, content type and content.
const OURS: [(&str, &str, &str); 3] = [
    ("index.html", "text/html; charset=utf-8", include_str!("docs/index.html")),
    ("initializer.js", "text/javascript; charset=utf-8", include_str!("docs/initializer.js")),
    ("favicon.svg", "image/svg+xml", ICON),
];

pub(super) fn routes(document: &OpenApi) -> anyhow::Result<Router<Arc<App>>> {
    let document = Bytes::from(text(document)?);
    let document = get(|| async move { ([(CONTENT_TYPE, "application/json"), CACHED], document) });
    let events =
        get(|| async { ([(CONTENT_TYPE, "application/json"), CACHED], include_str!("../../../docs/asyncapi.json")) });
    let icon = get(|| async { ([(CONTENT_TYPE, "image/svg+xml"), CACHED], ICON) });
    let welcome = get(|| async {
        let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), CACHED, (CONTENT_SECURITY_POLICY, WELCOME_POLICY)];
        (headers, include_str!("docs/welcome.html"))
    });
    let to_page = get(|| async { (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "docs/")]) });
    let assets = Router::new()
        .route("/docs/", get(serve))
        .route("/docs/{*file}", get(serve))
        .with_state::<Arc<App>>(Arc::new(Assets::new()?));
    let shared = map_response(async |mut response: Response| {
        response.extensions_mut().insert(SharedBody);
        response
    });
    let documents = Router::new().route("/openapi.json", document).route("/asyncapi.json", events);
    let pages = Router::new().route("/", welcome).route("/favicon.ico", icon).route("/docs", to_page);
    Ok(documents.merge(pages).merge(assets).layer(shared))
}

/// The document, byte for byte as the gateway serves it and as `docs/openapi.json` contains it.
pub(super) fn text(document: &OpenApi) -> serde_json::Result<String> {
    document.to_pretty_json().map(|text| text + "\n")
}

async fn serve(
    State(assets): State<Arc<Assets>>,
    path: Option<Path<String>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = path.as_ref().map_or("index.html", |Path(path)| path.as_str());
    let asset = assets.0.get(name).ok_or_else(|| Error::not_found("route"))?;
    let gzip = asset.gzip.as_ref().filter(|_| takes_gzip(&headers));
    let body = match gzip {
        _ if method == Method::HEAD => Bytes::new(),
        Some(gzip) => gzip.clone(),
        None => asset.plain().await?,
    };
    let length = gzip.map_or(asset.size, Bytes::len);
    let encoding = gzip.map(|_| [(CONTENT_ENCODING, "gzip")]);
    let headers =
        [(VARY, "accept-encoding"), (CONTENT_TYPE, &*asset.content_type), CACHED, (CONTENT_SECURITY_POLICY, POLICY)];
    Ok((encoding, headers, [(CONTENT_LENGTH, length)], body).into_response())
}

/// The files of Swagger UI by name.
struct Assets(HashMap<&'static str, Asset>);

/// A file of Swagger UI. Most files are embedded in compressed form.
struct Asset {
    content_type: String,
    gzip: Option<Bytes>,
    /// Filled by the first request from a client that does not accept gzip.
    plain: OnceCell<Bytes>,
    /// Size of the uncompressed form, in bytes.
    size: usize,
}

impl Assets {
    fn new() -> anyhow::Result<Self> {
        let mut assets = HashMap::new();
        for name in FILES {
            assets.insert(name, Asset::read(name)?);
        }
        assets.extend(OURS.map(|(name, kind, text)| (name, Asset::of(kind, text))));
        Ok(Self(assets))
    }
}

impl Asset {
    fn of(content_type: &str, text: &'static str) -> Self {
        let plain = OnceCell::new_with(Some(Bytes::from_static(text.as_bytes())));
        Self { content_type: content_type.to_owned(), gzip: None, plain, size: text.len() }
    }

    fn read(name: &str) -> anyhow::Result<Self> {
        let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default()))
            .map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        let file = file.with_context(|| format!("Swagger UI has no file {name}"))?;
        let bytes = match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let (gzip, plain, size) = if file.gzpipped {
            // RFC 1952: the last four bytes are the uncompressed size.
            let size = bytes.last_chunk().map_or(0, |size| u32::from_le_bytes(*size));
            (Some(bytes), OnceCell::new(), size as usize)
        } else {
            let size = bytes.len();
            (None, OnceCell::new_with(Some(bytes)), size)
        };
        Ok(Self { content_type: file.content_type, gzip, plain, size })
    }

    /// The uncompressed form. It is decompressed once, on a blocking thread, and kept.
    async fn plain(&self) -> Result<Bytes> {
        let inflate = async || {
            let gzip = self.gzip.clone().unwrap_or_default();
            tokio::task::spawn_blocking(move || inflate(&gzip)).await.map_err(Error::internal)?.map_err(Error::internal)
        };
        self.plain.get_or_try_init(inflate).await.cloned()
    }
}

fn inflate(gzip: &[u8]) -> std::io::Result<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut plain)?;
    Ok(plain.into())
}

/// Whether a client accepts gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.map(|coding| coding.split_once(';').unwrap_or((coding, ""))).any(|(name, weight)| {
        let weight = weight.trim().to_ascii_lowercase();
        let refused = weight.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
        ["gzip", "x-gzip"].iter().any(|gzip| gzip.eq_ignore_ascii_case(name.trim())) && !refused
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Request};

    use super::*;
    use crate::rest::tests::{gateway_with, problem};
    use crate::testing::files::Files;
    use crate::testing::send;

    #[test]
    fn gzip_is_negotiated() {
        let takes = |accepts: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepts))]))
        };
        assert!(["gzip", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.8", "GZIP"].into_iter().all(takes));
        assert!(!["", "identity", "br", "gzip;q=0", "gzip; Q=0.000, br", "gzip;q=0, *"].into_iter().any(takes));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn public_documents_need_no_token() {
        let routes = gateway_with(&[], &Files::default()).await;
        let document = send(&routes, Request::get("/openapi.json")).await;
        assert_eq!((document.status, document.json["openapi"].as_str()), (200, Some("3.1.0")));
        assert!(document.json["paths"]["/api/rooms/{roomId}"]["patch"].is_object());

        let page = send(&routes, Request::get("/docs")).await;
        assert_eq!((page.status, &page.headers[LOCATION]), (308, &"docs/".parse().unwrap()));
        for (file, kind) in [
            ("", "text/html; charset=utf-8"),
            ("swagger-ui-bundle.js", "text/javascript"),
            ("initializer.js", "text/javascript; charset=utf-8"),
        ] {
            let answer = send(&routes, Request::get(format!("/docs/{file}"))).await;
            assert_eq!((answer.status, &answer.headers[CONTENT_TYPE]), (200, &kind.parse().unwrap()), "{file}");
            assert!(answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("script-src 'self';"));
        }
        assert_eq!(problem(&send(&routes, Request::get("/docs/x")).await), (404, "not_found"));
        assert_eq!(problem(&send(&routes, Request::post("/openapi.json")).await), (405, "method_not_allowed"));
    }

    #[tokio::test]
    async fn the_welcome_page_links_to_the_documents() {
        let routes = gateway_with(&[], &Files::default()).await;
        let page = send(&routes, Request::get("/")).await;
        assert_eq!((page.status, &page.headers[CONTENT_TYPE]), (200, &"text/html; charset=utf-8".parse().unwrap()));
        let page = String::from_utf8(page.bytes.to_vec()).unwrap();
        let links = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect::<Vec<_>>();
        assert!(links.len() >= 4, "{links:?}");
        for link in links.into_iter().chain(["favicon.ico", "livez"]) {
            assert_eq!(send(&routes, Request::get(format!("/{link}"))).await.status, 200, "{link}");
        }
    }

    #[tokio::test]
    async fn files_have_both_forms_and_head_has_the_length_of_get() {
        let routes = gateway_with(&[], &Files::default()).await;
        for name in FILES.into_iter().chain(OURS.map(|(name, ..)| name)) {
            let mut plain = None;
            for accepts in ["identity", "br, gzip"] {
                let ask = |method| {
                    Request::builder().method(method).uri(format!("/docs/{name}")).header(ACCEPT_ENCODING, accepts)
                };
                let (head, whole) = (send(&routes, ask(Method::HEAD)).await, send(&routes, ask(Method::GET)).await);
                assert_eq!(whole.headers[CONTENT_LENGTH], whole.bytes.len().to_string(), "{name}");
                assert_eq!((head.status, head.bytes.len()), (200, 0), "{name}");
                for header in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, VARY] {
                    assert_eq!(head.headers.get(&header), whole.headers.get(&header), "{name} {header}");
                }
                assert_eq!(whole.headers[VARY], "accept-encoding");
                let bytes = match whole.headers.get(CONTENT_ENCODING) {
                    Some(_) => inflate(&whole.bytes).unwrap(),
                    None => whole.bytes,
                };
                assert!(bytes == *plain.get_or_insert_with(|| bytes.clone()), "{name}");
            }
        }
        let bundle = send(&routes, Request::get("/docs/swagger-ui-bundle.js").header(ACCEPT_ENCODING, "gzip")).await;
        assert_eq!(bundle.headers[CONTENT_ENCODING], "gzip");
        assert!(bundle.bytes.len() < 1_000_000);
    }

    #[tokio::test]
    async fn the_page_loads_only_files_of_this_server() {
        let routes = gateway_with(&[], &Files::default()).await;
        let page = String::from_utf8(send(&routes, Request::get("/docs/")).await.bytes.to_vec()).unwrap();
        let named = page.split(['"', '\'']).filter(|text| text.starts_with("./")).collect::<Vec<_>>();
        assert_eq!(named.len(), 4, "{named:?}");
        for name in named {
            assert_eq!(
                send(&routes, Request::get(format!("/docs/{}", name.trim_start_matches("./")))).await.status,
                200,
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_is_decompressed_once_and_never_for_head() {
        let assets = Arc::new(Assets::new().unwrap());
        let ask = async |method: Method, accepts: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepts))]);
            let path = Some(Path("swagger-ui-bundle.js".to_owned()));
            let answer = serve(State(assets.clone()), path, method, headers).await.unwrap();
            axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap()
        };
        let bundle = &assets.0["swagger-ui-bundle.js"];
        for accepts in ["identity", "gzip"] {
            assert!(ask(Method::HEAD, accepts).await.is_empty());
        }
        let packed = ask(Method::GET, "gzip").await;
        assert_eq!(packed.as_ptr(), bundle.gzip.as_ref().unwrap().as_ptr());
        assert!(bundle.plain.get().is_none());

        let first = ask(Method::GET, "identity").await;
        assert!(first.starts_with(b"/*!"));
        // The same memory, not another copy.
        assert_eq!(ask(Method::GET, "").await.as_ptr(), first.as_ptr());
    }
}

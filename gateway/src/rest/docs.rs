//! The document of this API at `/openapi.json`, and Swagger UI over it at `/docs`.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, VARY};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use confab_common::Error;
use flate2::read::GzDecoder;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::App;
use crate::problem::Problem;

/// The same for everybody, until another version is rolled out.
const CACHED: (HeaderName, &str) = (CACHE_CONTROL, "public, max-age=60");

/// Its own scripts, the styles and images that these write into the page, and calls of this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes(document: &OpenApi) -> serde_json::Result<Router<Arc<App>>> {
    let document = Bytes::from(text(document)?);
    // Relative, so that it works below a path of a proxy too.
    let settings = Config::from("../openapi.json").validator_url("none").try_it_out_enabled(true).display_request_duration(true);
    let settings = Arc::new(settings);
    let file = move |path: Option<Path<String>>, headers: HeaderMap| async move {
        file(path.as_ref().map_or("", |Path(path)| path.as_str()), settings, takes_gzip(&headers))
    };
    let document = get(|| async move { ([(CONTENT_TYPE, "application/json"), CACHED], document) });
    let to_page = get(|| async { (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "docs/")]) });
    Ok(Router::new()
        .route("/openapi.json", document)
        .route("/docs", to_page)
        .route("/docs/", get(file.clone()))
        .route("/docs/{*file}", get(file)))
}

/// The document as it is served, and kept in `docs/openapi.json`.
pub(super) fn text(document: &OpenApi) -> serde_json::Result<String> {
    document.to_pretty_json().map(|text| text + "\n")
}

/// A file of Swagger UI. Most are kept compressed.
fn file(path: &str, settings: Arc<Config<'static>>, gzip: bool) -> Result<Response, Problem> {
    let file = utoipa_swagger_ui::serve(path, settings).map_err(Error::internal)?;
    let file = file.ok_or_else(|| Error::not_found("route"))?;
    let bytes = match file.bytes {
        compressed if file.gzpipped && !gzip => {
            let mut bytes = Vec::new();
            GzDecoder::new(&*compressed).read_to_end(&mut bytes).map_err(Error::internal)?;
            bytes.into()
        }
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let encoding = (file.gzpipped && gzip).then_some([(CONTENT_ENCODING, "gzip")]);
    let headers = [(VARY, "accept-encoding"), (CONTENT_TYPE, &*file.content_type), CACHED, (CONTENT_SECURITY_POLICY, POLICY)];
    Ok((encoding, headers, bytes).into_response())
}

/// Whether a client says that it can read gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
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
    fn who_takes_gzip() {
        let takes = |accepts: &'static str| takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepts))]));
        assert!(["gzip", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.8", "GZIP"].into_iter().all(takes));
        assert!(!["", "identity", "br", "gzip;q=0", "gzip; Q=0.000, br", "gzip;q=0, *"].into_iter().any(takes));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn documents_need_no_token() {
        let routes = gateway_with(&[], &Files::default()).await;
        let document = send(&routes, Request::get("/openapi.json")).await;
        assert_eq!((document.status, document.json["openapi"].as_str()), (200, Some("3.1.0")));
        assert!(document.json["paths"]["/api/rooms/{roomId}"]["patch"].is_object());

        let page = send(&routes, Request::get("/docs")).await;
        assert_eq!((page.status, &page.headers[LOCATION]), (308, &"docs/".parse().unwrap()));
        for (file, kind) in [("", "text/html"), ("swagger-ui-bundle.js", "text/javascript"), ("swagger-initializer.js", "text/javascript")]
        {
            let answer = send(&routes, Request::get(format!("/docs/{file}"))).await;
            assert_eq!((answer.status, &answer.headers[CONTENT_TYPE]), (200, &kind.parse().unwrap()), "{file}");
            assert!(answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("script-src 'self';"));
        }
        let bundle = async |accepts: &str| send(&routes, Request::get("/docs/swagger-ui-bundle.js").header(ACCEPT_ENCODING, accepts)).await;
        let (plain, packed) = (bundle("identity").await, bundle("br, gzip").await);
        assert_eq!((plain.headers.get(CONTENT_ENCODING), &packed.headers[CONTENT_ENCODING]), (None, &"gzip".parse().unwrap()));
        assert!(plain.bytes.starts_with(b"/*!") && packed.bytes.len() < plain.bytes.len() / 2);
        assert!([&plain, &packed].iter().all(|answer| answer.headers[VARY] == "accept-encoding"));
        assert_eq!(problem(&send(&routes, Request::get("/docs/x")).await), (404, "not_found"));
        assert_eq!(problem(&send(&routes, Request::post("/openapi.json")).await), (405, "method_not_allowed"));
    }
}

//! Error responses as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use confab_common::{Code, Error};
use confab_identity::tokens::is_bearer;
use serde::Serialize;
use utoipa::ToSchema;

/// An error for the client. Handlers return it, and the edge serialises the document, because only the edge has the
/// request id.
#[derive(Debug, Clone)]
pub struct Problem(pub Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        Self(status.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error response (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct Document<'a> {
    r#type: &'static str,
    /// The name of the HTTP status.
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The machine-readable error code; each response lists the codes that it can have.
    code: &'static str,
    /// A description of the error for developers.
    detail: &'a str,
    /// The id of the request in the server's log, also in the header `X-Request-Id`.
    request_id: &'a str,
    /// The fields that failed validation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldDocument<'a>>,
}

/// A field that failed validation.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldProblem)]
struct FieldDocument<'a> {
    field: &'a str,
    detail: &'a str,
}

impl<'a> Document<'a> {
    /// The problem document of an error.
    pub fn new(error: &'a Error, request_id: &'a str) -> Self {
        let status = error.code.http_status();
        Self {
            r#type: "about:blank",
            title: StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default(),
            status,
            code: error.code.as_str(),
            detail: &error.detail,
            request_id,
            errors: error
                .fields
                .iter()
                .map(|error| FieldDocument { field: &error.field, detail: &error.detail })
                .collect(),
        }
    }

    /// The same document with another HTTP status than that of its code.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status: status.as_u16(), title: status.canonical_reason().unwrap_or_default(), ..self }
    }
}

/// Whether a request carries a bearer token, valid or not.
pub fn has_token(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|header| is_bearer(header.as_bytes()))
}

/// Serialises the document of a response that is a [`Problem`]; leaves other responses unchanged. `had_token`: the
/// request carried a token, so `unauthorized` means that this token is invalid.
pub fn render(mut response: Response, request_id: &str, had_token: bool) -> Response {
    let Some(Problem(error)) = response.extensions_mut().remove::<Problem>() else { return response };
    *response.body_mut() = Body::from(serde_json::to_vec(&Document::new(&error, request_id)).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    match error.code {
        Code::Unauthorized => {
            // RFC 6750, section 3.1.
            let challenge = if had_token { "Bearer error=\"invalid_token\"" } else { "Bearer" };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Code::RateLimited | Code::Unavailable => {
            // Whole seconds, rounded up: a client must not retry too early.
            let seconds = error.retry_after.map_or(1, |time| time.as_millis().div_ceil(1000).max(1) as u64);
            headers.insert(RETRY_AFTER, seconds.into());
        }
        _ => {}
    }
    response
}

/// The response to an unknown route.
pub async fn unknown_route() -> Problem {
    Problem(Error::not_found("route"))
}

/// The response to an unsupported method of a known route. The router adds `Allow`.
pub async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem(Error::new(Code::MethodNotAllowed, format!("{} does not support {method}", uri.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn rendered(error: Error) -> (Response<()>, serde_json::Value) {
        let (head, body) = render(Problem(error).into_response(), "r1", false).into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(head, ()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_problem_document_matches_the_contract() {
        let (response, body) = rendered(Error::field("content", "must not be empty")).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body,
            serde_json::json!({"type": "about:blank", "title": "Bad Request", "status": 400, "code": "invalid_request",
                "detail": "content must not be empty", "requestId": "r1",
                "errors": [{"field": "content", "detail": "must not be empty"}]})
        );
    }

    #[test]
    fn an_invalid_token_changes_the_challenge() {
        let challenge = |had_token| {
            let answer = render(Problem(Error::new(Code::Unauthorized, "no")).into_response(), "r1", had_token);
            answer.headers()[WWW_AUTHENTICATE].clone()
        };
        assert_eq!(
            (challenge(false), challenge(true)),
            ("Bearer".parse().unwrap(), "Bearer error=\"invalid_token\"".parse().unwrap())
        );
        let shows =
            |value: &'static str| has_token(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]));
        assert!(
            shows("Bearer x")
                && shows("bearer ")
                && !shows("Basic YTpi")
                && !shows("Bearer")
                && !has_token(&HeaderMap::new())
        );
    }

    #[tokio::test]
    async fn some_errors_add_headers() {
        let (response, body) = rendered(Error::new(Code::Unauthorized, "no")).await;
        assert_eq!(
            (response.status(), &response.headers()[WWW_AUTHENTICATE]),
            (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
        );
        assert!(body.get("errors").is_none());
        let (response, _) = rendered(Error::new(Code::InvalidCredentials, "no")).await;
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        let late = Error::unavailable("x").retry_in(Duration::from_millis(1200));
        assert_eq!(rendered(late).await.0.headers()[RETRY_AFTER], "2");
        assert_eq!(rendered(Error::new(Code::RateLimited, "slow down")).await.0.headers()[RETRY_AFTER], "1");
    }
}

//! The HTTP responses that reject Engine.IO requests.

use axum::http::header::UPGRADE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::metrics::LIMITS;
use serde_json::json;

use crate::ending::Ending;
use crate::packet::Malformed;

/// The reason to reject a request, with the codes and texts of the reference server
/// (<https://github.com/socketio/socket.io/blob/main/packages/engine.io/lib/server.ts>, `errorMessages`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownTransport,
    /// This node has no such session. The client starts a new one.
    UnknownSession,
    BadMethod,
    /// Any other invalid request.
    BadRequest,
    /// [`Application::may_connect`](crate::Application::may_connect) rejects the request, usually for its `Origin`.
    Forbidden,
    /// The request is for a WebSocket over HTTP/1.0.
    UpgradeRequired,
    UnsupportedVersion,
    /// A packet or a payload exceeds the packet limit.
    TooLarge,
    /// This node drains. The client reconnects to another node.
    GoingAway,
}

impl Refusal {
    /// [`TooLarge`](Self::TooLarge), counted in the metric of limits.
    pub fn too_large() -> Self {
        LIMITS.hit("packet");
        Self::TooLarge
    }
}

impl Refusal {
    /// The cause of the session's end when this rejection ends it.
    pub fn ending(self) -> Ending {
        match self {
            Self::TooLarge => Ending::TooLarge,
            Self::UnknownSession => Ending::AnswerLost,
            _ => Ending::Malformed,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::BadRequest
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, text) = match self {
            Self::UnknownTransport => (StatusCode::BAD_REQUEST, 0, "Transport unknown"),
            Self::UnknownSession => (StatusCode::BAD_REQUEST, 1, "Session ID unknown"),
            Self::BadMethod => (StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, 3, "Bad request"),
            Self::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, 3, "Bad request"),
            Self::Forbidden => (StatusCode::FORBIDDEN, 4, "Forbidden"),
            Self::UnsupportedVersion => (StatusCode::BAD_REQUEST, 5, "Unsupported protocol version"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 3, "Bad request"),
            Self::GoingAway => (StatusCode::SERVICE_UNAVAILABLE, 3, "Bad request"),
        };
        let mut answer = (status, axum::Json(json!({ "code": code, "message": text }))).into_response();
        if status == StatusCode::UPGRADE_REQUIRED {
            answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        answer
    }
}

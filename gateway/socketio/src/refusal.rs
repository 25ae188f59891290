//! Refused requests of Engine.IO.

use axum::http::header::UPGRADE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::metrics::LIMITS;
use serde_json::json;

use crate::ending::Ending;
use crate::packet::Malformed;

/// A refused request, in the words of the protocol's reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such transport.
    UnknownTransport,
    /// No such session here; the client starts over.
    UnknownSession,
    /// The session needs another method.
    BadMethod,
    /// Any other invalid request.
    BadRequest,
    /// The page's origin may not connect.
    Forbidden,
    /// A WebSocket needs HTTP/1.1.
    UpgradeRequired,
    /// Another version of the protocol.
    UnsupportedVersion,
    /// The payload exceeds the packet limit.
    TooLarge,
    /// This gateway is draining; the client reconnects to another one.
    GoingAway,
}

impl Refusal {
    /// The refusal of a packet over its limit.
    pub fn too_large() -> Self {
        LIMITS.hit("packet");
        Self::TooLarge
    }
}

impl Refusal {
    /// The way in which a session ends whose request is refused so.
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

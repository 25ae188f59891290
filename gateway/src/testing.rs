//! Helpers for the tests of this crate: scripted services and requests to routes.

pub mod files;
pub mod keys;
pub mod messages;
pub mod services;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, request};
use bytes::Bytes;
pub use confab_common::testing::eventually;
pub use confab_identity::testing::{SESSION, bus, claims, fake, identity};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// A complete response.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// The parsed body; null when it is not JSON.
    pub json: serde_json::Value,
}

/// Sends a request without a body.
pub async fn send(routes: &Router, request: request::Builder) -> Answer {
    send_body(routes, request, "").await
}

/// Sends a request.
pub async fn send_body(routes: &Router, request: request::Builder, body: impl Into<Body>) -> Answer {
    let answer = routes.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or_default();
    Answer { status: head.status.as_u16(), headers: head.headers, bytes, json }
}

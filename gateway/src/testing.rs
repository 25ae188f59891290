//! Helpers for the tests of this crate: scripted services and requests to routes.

pub mod files;
pub mod keys;
pub mod services;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, request};
use bytes::{BufMut, Bytes, BytesMut};
use confab_common::Error;
use confab_common::bus::Bus;
use confab_common::grpc::{Transport, in_process};
pub use confab_common::testing::eventually;
use confab_proto::auth::v1::UserRef;
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tower::{ServiceExt, service_fn};
use uuid::Uuid;

use crate::tokens::Identity;

/// A gRPC service that answers each call's method name and message with the result of `answer`.
pub fn fake(answer: impl Fn(&str, Bytes) -> Result<Vec<u8>, Error> + Send + Sync + 'static) -> Transport {
    let answer = Arc::new(answer);
    in_process(service_fn(move |request: http::Request<tonic::body::Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let message = body.collect().await.unwrap().to_bytes().slice(5..);
            let method = head.uri.path().rsplit('/').next().unwrap();
            Ok(match answer(method, message) {
                Ok(message) => {
                    let mut frame = BytesMut::with_capacity(message.len() + 5);
                    frame.put_u8(0);
                    frame.put_u32(message.len() as u32);
                    frame.extend_from_slice(&message);
                    let head =
                        Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
                    head.body(tonic::body::Body::new(Full::new(frame.freeze()))).unwrap()
                }
                Err(error) => Status::from(error).into_http(),
            })
        }
    }))
}

/// The session id in the tests' tokens.
pub const SESSION: Uuid = Uuid::from_u128(9);

/// A new bus in this process.
pub fn bus() -> Bus {
    Bus::open(&"local:".into(), None).unwrap()
}

/// An arbitrary identity.
pub fn identity() -> Identity {
    let user_id = Uuid::from_u128(7);
    let user = UserRef { id: user_id.to_string(), username: "zoë".into() };
    Identity { user_id, user, session_id: SESSION, issued_at: 0, expires_at: i64::MAX }
}

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

/// The claims of a valid token, with the claims in `change` replaced; null removes a claim.
pub fn claims(change: serde_json::Value) -> serde_json::Value {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims: HashMap<String, serde_json::Value> = serde_json::from_value(serde_json::json!({
        "iss": "confab", "aud": "confab", "sub": Uuid::from_u128(7).to_string(), "name": "zoë", "jti": SESSION,
        "iat": now, "nbf": now, "exp": now + 60,
    }))
    .unwrap();
    claims.extend(serde_json::from_value::<HashMap<_, _>>(change).unwrap());
    claims.retain(|_, value| !value.is_null());
    serde_json::to_value(claims).unwrap()
}

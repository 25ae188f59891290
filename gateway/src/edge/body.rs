//! Reads request bodies, with limits on size and time.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use confab_common::{Code, Error, Result};
use confab_socketio::budget::Held;
use confab_socketio::net::{collect_steadily, too_large, too_slow};
use tokio::time::timeout;

use super::Context;
use crate::problem::Problem;

/// Largest JSON body, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How long a whole JSON body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// Rejects requests with a compressed body: its size after decompression is not bounded by the bytes on the wire.
pub async fn only_plain(request: Request<Body>, next: Next) -> Response {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if request.headers().get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return next.run(request).await;
    }
    let error = Error::new(Code::UnsupportedMediaType, "Content-Encoding is not supported; send the body as it is");
    ([(ACCEPT_ENCODING, "identity"), (CONNECTION, "close")], Problem(error)).into_response()
}

/// Reads the whole body of a request, at most `most` bytes. The bytes are counted for the client as they arrive.
///
/// # Errors
/// `too_large` above `most` bytes; if the declared length exceeds it, before anything is read. `invalid_request` when
/// the body breaks off, [`Code::TooSlow`] when it does not arrive within 10 s. After an error the connection cannot be
/// reused.
pub async fn read(request: Request<Body>, most: usize) -> Result<Bytes> {
    let (head, body) = request.into_parts();
    if declared_length(&head.headers).is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let mut held = head.extensions.get::<Context>().and_then(Context::hold);
    // The buffer of the head may stay allocated while the body arrives; it is counted with the head.
    drop(head);
    collect(body, most, held.as_mut()).await
}

/// Reads a whole body of at most `most` bytes, counted in `held` as they arrive.
///
/// # Errors
/// As [`read`].
pub async fn collect(body: Body, most: usize, held: Option<&mut Held>) -> Result<Bytes> {
    timeout(ARRIVES_WITHIN, collect_steadily(body, most, held)).await.unwrap_or_else(|_| Err(too_slow()))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn code_of(request: Request<Body>) -> Code {
        read(request, MAX_BODY).await.unwrap_err().code
    }

    #[tokio::test]
    async fn a_declared_length_above_the_limit_is_rejected_before_reading() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::post("/").header(CONTENT_LENGTH, MAX_BODY + 1).body(never).unwrap();
        assert_eq!(code_of(request).await, Code::TooLarge);
    }

    #[tokio::test]
    async fn an_endless_body_is_rejected_at_the_limit() {
        let endless =
            Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]))));
        assert_eq!(code_of(Request::post("/").body(endless).unwrap()).await, Code::TooLarge);
        let whole = Body::from(vec![b' '; MAX_BODY]);
        assert_eq!(read(Request::post("/").body(whole).unwrap(), MAX_BODY).await.unwrap().len(), MAX_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_broken_bodies_are_rejected() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(code_of(Request::post("/").body(never).unwrap()).await, Code::TooSlow);
        let broken =
            Body::from_stream(stream::once(std::future::ready(Err::<Bytes, _>(std::io::Error::other("reset")))));
        assert_eq!(code_of(Request::post("/").body(broken).unwrap()).await, Code::InvalidRequest);
    }
}

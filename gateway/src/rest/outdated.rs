//! Requests that may have waited while the gateway stood still. A client that received no answer has perhaps repeated its
//! request at another gateway and made further changes; the first request must not undo them afterwards.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use confab_common::standstill::PauseDetector;
use confab_common::{Code, Error};

use crate::problem::Problem;

/// When a client may repeat a rejected request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Middleware: rejects requests with unsafe methods after a pause of the process, and those that were in progress when
/// it began.
pub async fn reject(State(pauses): State<Arc<PauseDetector>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let ended = pauses.ended();
    if pauses.is_paused() {
        let detail = "the gateway stood still while the request may have waited; nothing was done";
        return Problem(Error::new(Code::Unavailable, detail).retry_in(RETRY_AFTER)).into_response();
    }
    // The client of an upload is still sending, so it has not given up.
    if is_upload(&request) {
        return next.run(request).await;
    }
    let mut answer = pin!(next.run(request));
    let answer = poll_fn(|context| {
        if pauses.is_paused() || pauses.ended() != ended {
            return Poll::Ready(None);
        }
        answer.as_mut().poll(context).map(Some)
    });
    answer.await.unwrap_or_else(|| Problem(Error::timeout()).into_response())
}

fn is_upload(request: &Request) -> bool {
    request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::{Method, StatusCode};
    use axum::middleware::from_fn_with_state;
    use axum::routing::any;
    use confab_common::standstill;
    use tokio::task::yield_now;

    use super::*;
    use crate::testing::send;

    #[tokio::test]
    async fn after_a_pause_requests_that_change_something_are_rejected() {
        let pauses = Arc::<PauseDetector>::default();
        pauses.observe();
        let routes = Router::new()
            .route("/", any(async || StatusCode::NO_CONTENT))
            .layer(from_fn_with_state(pauses.clone(), reject));
        let status = async |method| send(&routes, Request::builder().method(method).uri("/")).await.status;
        assert_eq!(status(Method::DELETE).await, 204);
        pauses.stand_still();
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(status(method).await, 503);
        }
        assert_eq!((status(Method::GET).await, status(Method::HEAD).await), (204, 204));
        assert!(pauses.resume(standstill::now()));
        assert_eq!(status(Method::POST).await, 204);
    }

    #[tokio::test]
    async fn a_request_in_progress_goes_no_further_after_a_pause() {
        for is_over in [false, true] {
            let (pauses, steps) = (Arc::<PauseDetector>::default(), Arc::<AtomicUsize>::default());
            pauses.observe();
            let (during, counted) = (pauses.clone(), steps.clone());
            let handler = any(async move || {
                counted.fetch_add(1, Ordering::Relaxed);
                during.stand_still();
                if is_over {
                    assert!(during.resume(standstill::now()));
                }
                yield_now().await;
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let routes = Router::new().route("/", handler).layer(from_fn_with_state(pauses.clone(), reject));
            let answer = send(&routes, Request::delete("/")).await;
            assert_eq!((answer.status, steps.load(Ordering::Relaxed)), (504, 1));
        }
    }
}

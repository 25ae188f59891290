//! Requests that may have waited while the gateway stood still. A client that received no answer has perhaps repeated its
//! request at another gateway and made further changes; the first request must not undo them afterwards.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use confab_common::standstill::PauseDetector;
use confab_common::{Code, Error};

use crate::problem::Problem;

/// When a client may repeat a rejected request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Middleware: rejects requests with unsafe methods after a pause of the process.
pub async fn reject(State(pauses): State<Arc<PauseDetector>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || !pauses.is_paused() {
        return next.run(request).await;
    }
    let detail = "the gateway stood still while the request may have waited; nothing was done";
    Problem(Error::new(Code::Unavailable, detail).retry_in(RETRY_AFTER)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{Method, StatusCode};
    use axum::middleware::from_fn_with_state;
    use axum::routing::any;
    use confab_common::standstill;

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
}

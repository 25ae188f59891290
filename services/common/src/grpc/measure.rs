//! Metrics of calls.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};

use crate::metrics::{CLIENT, Calls, SERVER};

/// A call in progress. A call dropped without an answer is recorded as cancelled.
pub(super) struct Measured {
    calls: &'static Calls,
    path: String,
    code: Code,
    begun: Instant,
}

impl Measured {
    fn begin(calls: &'static Calls, path: &str) -> Self {
        Self { calls, path: path.to_owned(), code: Code::Cancelled, begun: Instant::now() }
    }

    /// Starts measuring a call that this process makes.
    pub fn client<B>(request: &http::Request<B>) -> Self {
        Self::begin(&CLIENT, request.uri().path())
    }

    /// Records the answer. A call whose head has no status has succeeded, or is a stream.
    pub fn answered<B>(mut self, answer: &http::Response<B>) {
        self.code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.calls.record(&self.path, self.code, self.begun.elapsed());
    }
}

/// Measures a call that this process serves.
pub(super) async fn serve(request: Request, next: Next) -> Response {
    let mut measured = Measured::begin(&SERVER, request.uri().path());
    let answer = next.run(request).await;
    if Status::from_header_map(answer.headers()).is_some_and(|status| status.code() == Code::Unimplemented) {
        // A client that invents method names must not create new metrics.
        measured.path = "/unknown/unknown".into();
    }
    measured.answered(&answer);
    answer
}

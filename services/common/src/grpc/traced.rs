//! Spans of calls: one at the caller, one at the service, and the headers that connect them.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, FutureExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::error;
use crate::telemetry::trace::{Kind, Span};

/// Starts the span of a call, and adds its context to the request.
pub(super) fn call(request: &mut Request<Body>) -> Span {
    let span = Span::current().child(Kind::Client, "call");
    name(&span, request);
    span.write_to(request.headers_mut());
    span
}

/// Records the outcome of a call.
pub(super) fn answered(span: &Span, answer: &Response<Body>) {
    if span.is_none() {
        return;
    }
    let code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
    span.set("rpc.grpc.status_code", || code as i64);
    match code {
        Code::Unknown => span.fail("unknown"),
        Code::DeadlineExceeded => span.fail("deadline_exceeded"),
        Code::Unimplemented => span.fail("unimplemented"),
        Code::Internal => span.fail("internal"),
        Code::Unavailable => span.fail("unavailable"),
        Code::DataLoss => span.fail("data_loss"),
        // A rejection is an answer, not a failure.
        _ => {}
    }
}

/// Logs the cause of a failed call, at the service.
pub(super) fn log_cause(answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.extensions().get::<Status>() {
        error::log_cause(status);
    }
    answer
}

fn name(span: &Span, request: &Request<Body>) {
    let path = request.uri().path().trim_start_matches('/');
    span.rename(|| path.to_owned());
    if let Some((service, method)) = path.split_once('/') {
        span.set("rpc.system", || "grpc");
        span.set("rpc.service", || service.to_owned());
        span.set("rpc.method", || method.to_owned());
    }
}

/// A server whose spans continue the traces of its callers; it starts no traces.
#[derive(Debug, Clone)]
pub(super) struct Traced<S>(pub S);

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = Span::extract(request.headers()).child(Kind::Server, "call");
        if span.is_none() {
            return Either::Left(self.0.call(request));
        }
        name(&span, &request);
        let answer = span.in_scope(|| self.0.call(request));
        let answer = async move {
            let answer = span.instrument(answer).await;
            if let Ok(answer) = &answer {
                answered(&span, answer);
            }
            answer
        };
        Either::Right(answer.boxed())
    }
}

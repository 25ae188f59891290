//! The network transport: calls are spread over all replicas of a service, and dead replicas are avoided.
//!
//! Every call of ours is safe to repeat, so a call that one replica does not answer goes to the next until its
//! deadline. A streaming request is not buffered: it goes to the next replica only while none has read of it.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use futures::stream::poll_fn;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::service_fn;
use tower::util::{BoxCloneSyncService, ServiceExt};

use super::failure::Failure;
use super::measure::Measured;
use super::replicas::Replicas;
use super::traced;
use super::transport::{Call, Streams, Transport};

/// How long a stream waits for the first replica to be found.
const PATIENCE: Duration = Duration::from_secs(1);

/// The transport to all replicas behind `urls`: one `http://host:port`, or several separated by commas. Each host may
/// resolve to many addresses (a headless Service); it is resolved again every few seconds.
///
/// # Errors
/// When `urls` are not of that form. A name that does not resolve yet is no error.
pub fn connect(urls: &str) -> anyhow::Result<Transport> {
    let replicas = Replicas::find(targets(urls)?);
    Ok(BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let replicas = replicas.clone();
        async move {
            let (call, measured) = (Call::of(&request), Measured::client(&request));
            let span = traced::call(&mut request);
            let answer = match call.streams {
                Streams::Both => span.hold(pass(&replicas, call, request)).await,
                Streams::Nothing | Streams::Answer => span.hold(ask(&replicas, call, request)).await,
            };
            measured.answered(&answer);
            traced::answered(&span, &answer);
            Ok(answer)
        }
    })))
}

/// Checks a setting for [`connect`]; a parser for clap.
///
/// # Errors
/// When it does not have the required form.
pub fn urls(text: &str) -> Result<String, String> {
    targets(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The `host:port`s in a setting for [`connect`].
///
/// # Errors
/// When it does not have the required form.
pub fn targets(urls: &str) -> anyhow::Result<Vec<String>> {
    urls.split(',').map(|url| target(url.trim())).collect()
}

/// The `host:port` of a URL.
fn target(url: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    match (uri.scheme_str(), uri.host(), uri.port_u16()) {
        (Some("http"), Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        _ => bail!("{url} is not of the form http://host:port"),
    }
}

/// A call with a buffered request, which is sent to one replica after the other.
async fn ask(replicas: &Replicas, call: Call, request: Request<Body>) -> Response<Body> {
    let deadline = Instant::now() + call.deadline;
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return Status::internal("the request could not be encoded").into_http();
    };
    replicas.found(call.deadline).await;

    let mut refusal = Status::unavailable("no replica is known");
    // Once an attempt may have been carried out, `unavailable` ("nothing was done") is no longer a true answer.
    let mut unknown = false;
    loop {
        // Whether a further attempt might reveal the outcome.
        let mut alive = false;
        // Whether a connection was just ending and may have been replaced.
        let mut reconnects = false;
        // After a reading call "nothing was done" stays true: only this round's attempts may still be answered.
        unknown &= !call.reading;
        for replica in replicas.candidates(call.key) {
            let time = call.attempt.min(deadline.saturating_duration_since(Instant::now()));
            if time.is_zero() {
                return Status::deadline_exceeded("no answer in time").into_http();
            }
            let body = Body::new(Full::new(body.clone()));
            let attempt = async {
                match call.streams {
                    Streams::Nothing => whole(send(&replica.channel, &parts, body).await?).await,
                    Streams::Answer | Streams::Both => send(&replica.streams, &parts, body).await,
                }
            };
            match tokio::time::timeout(time, attempt).await {
                Ok(Ok(answer)) => match unavailable(&answer) {
                    Some(status) => {
                        replicas.refuses(&replica);
                        alive = true;
                        refusal = status;
                    }
                    None => {
                        replicas.works(&replica);
                        return answer;
                    }
                },
                Ok(Err(failure)) => {
                    tracing::debug!(replica = %replica.address, cause = %failure.cause, "call failed");
                    replicas.is_gone(&replica);
                    alive |= !failure.connecting;
                    reconnects |= !failure.connecting;
                    unknown |= !failure.undone;
                    refusal = Status::unavailable("cannot be reached");
                }
                Err(_) => {
                    replicas.is_slow(&replica);
                    alive = true;
                    unknown = true;
                }
            }
        }
        if !unknown && !reconnects {
            return refusal.into_http();
        }
        if !alive {
            return Status::deadline_exceeded("no replica knows the outcome").into_http();
        }
        // Try again until a replica knows or time is up; the pause avoids a tight loop when all fail at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A call with a streaming request: it goes to the first replica that reads of it, and both bodies pass through.
async fn pass(replicas: &Replicas, call: Call, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = Loan::new(body);
    replicas.found(PATIENCE).await;

    let mut refusal = Status::unavailable("no replica is known");
    for replica in replicas.candidates(call.key) {
        match send(&replica.streams, &parts, body.lend()).await {
            Ok(answer) => match unavailable(&answer) {
                Some(status) if body.is_untouched() => {
                    replicas.refuses(&replica);
                    refusal = status;
                }
                _ => {
                    replicas.works(&replica);
                    return answer;
                }
            },
            Err(failure) => {
                tracing::debug!(replica = %replica.address, cause = %failure.cause, "stream failed");
                replicas.is_gone(&replica);
                if !body.is_untouched() {
                    return Status::unknown("the connection broke").into_http();
                }
                refusal = Status::unavailable("cannot be reached");
            }
        }
    }
    refusal.into_http()
}

/// One attempt, until the head of its answer.
async fn send(channel: &Channel, parts: &Parts, body: Body) -> Result<Response<Body>, Failure> {
    let mut request = Request::from_parts(parts.clone(), body);
    *request.version_mut() = http::Version::HTTP_2;
    channel.clone().oneshot(request).await.map_err(Failure::of)
}

/// An answer with its whole body: a connection that breaks midway is a failed attempt too.
async fn whole(answer: Response<Body>) -> Result<Response<Body>, Failure> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(Failure::of)?;
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// The status of an answer that says that nothing was done, so another replica may be tried.
fn unavailable(answer: &Response<Body>) -> Option<Status> {
    Status::from_header_map(answer.headers()).filter(|status| status.code() == tonic::Code::Unavailable)
}

/// A body that can be offered again as long as no attempt has read of it.
// Held to take the body, never across an await.
struct Loan(Arc<Mutex<Option<Body>>>);

impl Loan {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn is_untouched(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The body, which only the first reader gets.
    fn lend(&self) -> Body {
        let lender = self.0.clone();
        let mut taken = None;
        Body::new(StreamBody::new(poll_fn(move |context| {
            let take = || lender.lock().take().map(BodyStream::new);
            match taken.get_or_insert_with(take) {
                Some(frames) => frames.poll_next_unpin(context),
                None => Poll::Ready(Some(Err(Status::cancelled("another reads it")))),
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_urls_of_the_form_asked_for() {
        assert_eq!(target("http://message:50051").unwrap(), "message:50051");
        for bad in ["message:50051", "https://message:1", "http://message", ""] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!(urls("http://a:1, http://b:2"), Ok("http://a:1, http://b:2".into()));
        assert!(urls("http://a:1,b").is_err());
    }

    #[tokio::test]
    async fn without_a_server_a_call_is_unavailable_at_once() {
        let transport = connect("http://127.0.0.1:1").unwrap();
        for call in [Call::within(Duration::from_secs(60)), Call::streaming()] {
            let begun = Instant::now();
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(call);
            let answer = transport.clone().oneshot(request).await.unwrap();
            assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), tonic::Code::Unavailable);
            assert!(begun.elapsed() < Duration::from_secs(2));
        }
    }

    #[tokio::test]
    async fn a_loan_is_read_by_one_borrower() {
        let loan = Loan::new(Body::new(Full::new(Bytes::from_static(b"all of it"))));
        let (late, first) = (loan.lend(), loan.lend());
        assert!(loan.is_untouched());
        assert_eq!(first.collect().await.unwrap().to_bytes(), "all of it");
        assert!(!loan.is_untouched());
        assert!(late.collect().await.is_err());
    }
}

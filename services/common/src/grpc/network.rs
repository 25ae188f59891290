//! The network transport. It spreads calls over all replicas of a service and avoids dead replicas.
//!
//! Every call of Confab is safe to repeat, so a call without an answer goes to the next replica until the deadline. A
//! streaming request is not buffered: it goes to the next replica only if no replica has read from it.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, ensure};
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
use super::role::Role;
use super::security::Security;
use super::traced;
use super::transport::{Call, Streams, Transport};
use super::urls::Urls;

/// How long a stream waits until the first replica is found.
const FIRST_REPLICA_WAIT: Duration = Duration::from_secs(1);

/// Returns the transport to all replicas behind `urls`, without TLS: one `http://host:port`, or several separated by
/// commas. A host may resolve to several addresses (a headless Service), and is resolved again every few seconds.
///
/// # Errors
/// When `urls` is not of that form. A name that does not resolve is not an error.
pub fn connect(urls: &str) -> anyhow::Result<Transport> {
    let urls = Urls::parse(urls)?;
    ensure!(!urls.is_https, "https:// needs a certificate");
    Ok(transport(Replicas::find(urls.targets, None)))
}

impl Security {
    /// Returns the transport to all replicas behind `urls`, which must be services with this role: like [`connect`], and
    /// for `https://` with TLS. A replica whose certificate does not have the role receives no call.
    ///
    /// # Errors
    /// When `urls` is not of that form, or is `https://` and this program has no certificate.
    pub fn connect(&self, role: Role, urls: &str) -> anyhow::Result<Transport> {
        let parsed = Urls::parse(urls)?;
        let connector = self.connector(role, parsed.is_https).with_context(|| urls.to_owned())?;
        if let Some(target) = parsed.beyond_loopback().filter(|_| connector.is_none()) {
            tracing::warn!(%target, "calls to http:// are not encrypted, and the service is not authenticated");
        }
        Ok(transport(Replicas::find(parsed.targets, connector)))
    }
}

fn transport(replicas: Arc<Replicas>) -> Transport {
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let replicas = replicas.clone();
        async move {
            let (call, measured) = (Call::of(&request), Measured::client(&request));
            let span = traced::call(&mut request);
            let answer = match call.streams {
                Streams::Both => span.instrument(proxy(&replicas, call, request)).await,
                Streams::Nothing | Streams::Answer => span.instrument(call_replicas(&replicas, call, request)).await,
            };
            measured.answered(&answer);
            traced::answered(&span, &answer);
            Ok(answer)
        }
    }))
}

/// In the extensions of an answer: a replica may also have executed an earlier attempt of the call, or may still do so.
#[derive(Debug, Clone, Copy)]
pub struct Uncertain;

/// Sends a call with a buffered request to one replica after another.
async fn call_replicas(replicas: &Replicas, call: Call, request: Request<Body>) -> Response<Body> {
    let deadline = Instant::now() + call.deadline;
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return Status::internal("the request could not be encoded").into_http();
    };
    replicas.found(call.deadline).await;

    let mut refusal = Status::unavailable("no replica is known");
    // After an attempt that a replica may have executed, `unavailable` ("nothing was done") is not a true answer.
    let mut unknown = false;
    loop {
        // Whether a further attempt could reveal the outcome.
        let mut alive = false;
        // Whether a connection had just ended and may have been replaced.
        let mut reconnects = false;
        // A call that only reads changes nothing: only the attempts of this round may still bring an answer.
        unknown &= !call.reading;
        for replica in replicas.candidates(call.key) {
            let time = call.attempt.min(deadline.saturating_duration_since(Instant::now()));
            if time.is_zero() {
                return Status::deadline_exceeded("no answer in time").into_http();
            }
            let body = Body::new(Full::new(body.clone()));
            let attempt = async {
                match call.streams {
                    Streams::Nothing => with_whole_body(send(&replica.channel, &parts, body).await?).await,
                    Streams::Answer | Streams::Both => send(&replica.streams, &parts, body).await,
                }
            };
            match tokio::time::timeout(time, attempt).await {
                Ok(Ok(answer)) => match unavailable(&answer) {
                    Some(status) => {
                        replicas.mark_unavailable(&replica);
                        alive = true;
                        refusal = status;
                    }
                    None => {
                        replicas.mark_working(&replica);
                        let mut answer = answer;
                        if unknown {
                            answer.extensions_mut().insert(Uncertain);
                        }
                        return answer;
                    }
                },
                Ok(Err(failure)) => {
                    tracing::debug!(replica = %replica.address, cause = %failure.cause, "call failed");
                    replicas.mark_unreachable(&replica);
                    alive |= !failure.connecting;
                    reconnects |= !failure.connecting;
                    unknown |= !failure.undone;
                    refusal = Status::unavailable("cannot be reached");
                }
                Err(_) => {
                    replicas.mark_slow(&replica);
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
        // Retries until a replica reports the outcome or the deadline passes. The pause avoids a busy loop when all
        // replicas fail at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Proxies a call with a streaming request to the first replica that reads from it. Neither body is buffered.
async fn proxy(replicas: &Replicas, call: Call, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = ReplayableBody::new(body);
    replicas.found(FIRST_REPLICA_WAIT).await;

    let mut refusal = Status::unavailable("no replica is known");
    for replica in replicas.candidates(call.key) {
        match send(&replica.streams, &parts, body.offer()).await {
            Ok(answer) => match unavailable(&answer) {
                Some(status) if body.is_untouched() => {
                    replicas.mark_unavailable(&replica);
                    refusal = status;
                }
                _ => {
                    replicas.mark_working(&replica);
                    return answer;
                }
            },
            Err(failure) => {
                tracing::debug!(replica = %replica.address, cause = %failure.cause, "stream failed");
                replicas.mark_unreachable(&replica);
                if !body.is_untouched() {
                    return Status::unknown("the connection broke").into_http();
                }
                refusal = Status::unavailable("cannot be reached");
            }
        }
    }
    refusal.into_http()
}

/// Makes one attempt, up to the head of the answer.
async fn send(channel: &Channel, parts: &Parts, body: Body) -> Result<Response<Body>, Failure> {
    let mut request = Request::from_parts(parts.clone(), body);
    *request.version_mut() = http::Version::HTTP_2;
    channel.clone().oneshot(request).await.map_err(Failure::of)
}

/// Reads the whole body of an answer: a connection that breaks midway is a failed attempt too.
async fn with_whole_body(answer: Response<Body>) -> Result<Response<Body>, Failure> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(Failure::of)?;
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// Returns the status of an answer that means "nothing was done", so that the call may go to another replica.
fn unavailable(answer: &Response<Body>) -> Option<Status> {
    Status::from_header_map(answer.headers()).filter(|status| status.code() == tonic::Code::Unavailable)
}

/// A request body that can be offered to another replica until a replica reads from it.
// Locked to take the body, never across an await.
struct ReplayableBody(Arc<Mutex<Option<Body>>>);

impl ReplayableBody {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn is_untouched(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Returns a body for one attempt; the first reader gets the content.
    fn offer(&self) -> Body {
        let source = self.0.clone();
        let mut taken = None;
        Body::new(StreamBody::new(poll_fn(move |context| {
            let take = || source.lock().take().map(BodyStream::new);
            match taken.get_or_insert_with(take) {
                Some(frames) => frames.poll_next_unpin(context),
                None => Poll::Ready(Some(Err(Status::cancelled("another attempt reads the body")))),
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn call_without_a_server_is_unavailable_at_once() {
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
    async fn a_body_is_read_by_one_attempt() {
        let body = ReplayableBody::new(Body::new(Full::new(Bytes::from_static(b"the body"))));
        let (late, first) = (body.offer(), body.offer());
        assert!(body.is_untouched());
        assert_eq!(first.collect().await.unwrap().to_bytes(), "the body");
        assert!(!body.is_untouched());
        assert!(late.collect().await.is_err());
    }
}

//! The client side: a deadline on every call, and streams without one, both in process and over the network.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower::{Service, service_fn};

use super::measure::Measured;
use super::traced::{self, Traced};

/// The transport under a generated client.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The options of a call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// How long the caller waits in all; for a streaming answer, until it begins.
    pub deadline: Duration,
    /// How long one replica may take before the next is tried as well; every call is safe to repeat.
    pub attempt: Duration,
    /// Calls with the same key prefer the same replica.
    pub key: Option<u64>,
    /// Whether the call changes nothing, so that an unknown outcome does not matter.
    pub reading: bool,
    /// Which bodies pass through instead of being buffered.
    pub streams: Streams,
}

/// Which bodies of a call are streams of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// None.
    Nothing,
    /// The answer.
    Answer,
    /// The request, and the answer if it is one.
    Both,
}

impl Call {
    /// A call with this deadline.
    pub const fn within(deadline: Duration) -> Self {
        Self { deadline, attempt: deadline, key: None, reading: false, streams: Streams::Nothing }
    }

    /// A call with a streaming request, such as an upload: both bodies pass through as fast as they are read, without a
    /// time limit, so callers must watch the progress. If connecting to a replica fails the next one is tried; once the
    /// request has been read of, there is no other attempt.
    pub const fn streaming() -> Self {
        Self { streams: Streams::Both, ..Self::within(FOR_EVER) }
    }

    /// Makes the answer a stream, as for a download: it must begin within the deadline and passes through as fast as it
    /// is read; callers must watch the progress.
    pub const fn streaming_answer(self) -> Self {
        Self { streams: Streams::Answer, ..self }
    }

    /// Limits the time of each replica.
    pub const fn attempt(self, attempt: Duration) -> Self {
        Self { attempt, ..self }
    }

    /// Prefers the replica of this key.
    pub const fn keyed(self, key: u64) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Marks the call as changing nothing: without an answer it is `unavailable` rather than unknown.
    pub const fn reading(self) -> Self {
        Self { reading: true, ..self }
    }

    pub(super) fn of<B>(request: &Request<B>) -> Self {
        // A client without a deadline of its own gets the default, never an endless wait.
        request.extensions().get().copied().unwrap_or(Self::within(Duration::from_millis(2500)))
    }
}

/// A request with its options; its deadline, if it has one, travels to the service as `grpc-timeout`.
pub fn request<T>(message: T, call: Call) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if call.streams == Streams::Nothing {
        request.set_timeout(call.deadline);
    }
    request.extensions_mut().insert(call);
    request
}

/// The transport to a service in this process: the server itself is the transport.
pub fn in_process<S>(server: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let server = Traced(server);
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let server = server.clone();
        async move {
            let (call, measured) = (Call::of(&request), Measured::client(&request));
            let span = traced::call(&mut request);
            let answer = span.hold(server.oneshot(request));
            let Ok(answer) = match call.streams {
                Streams::Both => answer.await,
                Streams::Nothing | Streams::Answer => match tokio::time::timeout(call.deadline, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Ok(Status::deadline_exceeded("no answer in time").into_http()),
                },
            };
            measured.answered(&answer);
            traced::answered(&span, &answer);
            Ok(answer)
        }
    }))
}

/// Gives a [`late`] transport its service.
#[derive(Clone)]
pub struct Binder(Arc<OnceLock<Transport>>);

impl Binder {
    /// Sends calls to this transport from now on. Only the first binding counts.
    pub fn bind(&self, transport: Transport) {
        let _ = self.0.set(transport);
    }
}

/// A transport whose service is bound later, for two services that call each other in one process. Until then calls
/// fail with `unavailable`.
pub fn late() -> (Transport, Binder) {
    let slot = Arc::new(OnceLock::<Transport>::new());
    let binder = Binder(slot.clone());
    let transport = BoxCloneSyncService::new(service_fn(move |request| {
        let bound = slot.get().cloned();
        async move {
            match bound {
                Some(transport) => transport.oneshot(request).await,
                None => Ok(Status::unavailable("still starting").into_http()),
            }
        }
    }));
    (transport, binder)
}

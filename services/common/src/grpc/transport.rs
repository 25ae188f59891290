//! The client's side: a deadline on every call, and streams without one, in process and over the network alike.

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

/// What a generated client runs over.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// How a call is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// How long the caller waits in all; where the answer is a stream, for its beginning.
    pub deadline: Duration,
    /// How long one replica may take before the next is asked as well; every call is safe to repeat.
    pub attempt: Duration,
    /// Calls of one key prefer one replica.
    pub key: Option<u64>,
    /// It changes nothing, so that it never matters what became of it.
    pub reading: bool,
    /// What passes through as it comes instead of being kept whole.
    pub streams: Streams,
}

/// Which bodies of a call are streams of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// None.
    Nothing,
    /// The answer.
    Answer,
    /// The request, and the answer if need be.
    Both,
}

impl Call {
    /// A call that may take so long, wherever it goes.
    pub const fn within(deadline: Duration) -> Self {
        Self { deadline, attempt: deadline, key: None, reading: false, streams: Streams::Nothing }
    }

    /// A call whose request is a stream, as an upload is: both bodies pass through as fast as they are read, and nothing
    /// bounds how long that takes, so callers watch its progress. A replica that cannot be connected is left for the
    /// next; once the request has been read of, there is no other attempt.
    pub const fn streaming() -> Self {
        Self { streams: Streams::Both, ..Self::within(FOR_EVER) }
    }

    /// The same call, whose answer is a stream, as a download is: it must begin within the deadline and passes through as
    /// fast as it is read; callers watch its progress.
    pub const fn streaming_answer(self) -> Self {
        Self { streams: Streams::Answer, ..self }
    }

    /// The same, giving each replica only so long.
    pub const fn attempt(self, attempt: Duration) -> Self {
        Self { attempt, ..self }
    }

    /// The same, preferring the replica of that key.
    pub const fn keyed(self, key: u64) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same, changing nothing: when nobody is left to ask, it is `unavailable`, not unknown.
    pub const fn reading(self) -> Self {
        Self { reading: true, ..self }
    }

    pub(super) fn of<B>(request: &Request<B>) -> Self {
        // A client that sets no deadline of its own gets the shared default, never an endless wait.
        request.extensions().get().copied().unwrap_or(Self::within(Duration::from_millis(2500)))
    }
}

/// A request with its way of being called; its deadline, if it has one in all, travels to the service as `grpc-timeout`.
pub fn request<T>(message: T, call: Call) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if call.streams == Streams::Nothing {
        request.set_timeout(call.deadline);
    }
    request.extensions_mut().insert(call);
    request
}

/// The transport to a service in this process: its server *is* the transport.
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
    /// From now on calls go there. Only the first binding counts.
    pub fn bind(&self, transport: Transport) {
        let _ = self.0.set(transport);
    }
}

/// A transport whose service is bound later, for two services that call each other in one process.
/// Until then calls answer `unavailable`.
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

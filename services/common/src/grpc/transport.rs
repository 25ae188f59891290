//! The client side: a deadline for every call, and streams without a deadline, both in process and over the network.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower::{Service, service_fn};

use super::measure::Measured;
use super::operation;
use super::peer::Peer;
use super::role::Role;
use super::roles;
use super::traced::{self, Traced, log_cause};

pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Longer than the life of any process (136 years).
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// How long the caller waits in total; for a streaming answer, until the answer begins.
    pub deadline: Duration,
    /// How long one replica may take before the call also goes to the next replica. Every call is safe to repeat.
    pub attempt: Duration,
    /// Calls with the same key prefer the same replica.
    pub key: Option<u64>,
    /// Whether the call changes nothing, so that an unknown outcome does not matter.
    pub reading: bool,
    /// Which bodies are proxied instead of buffered.
    pub streams: Streams,
}

/// Which bodies of a call are streams of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Neither body.
    Nothing,
    /// The body of the answer.
    Answer,
    /// The body of the request, and of the answer if it is a stream.
    Both,
}

impl Call {
    pub const fn within(deadline: Duration) -> Self {
        Self { deadline, attempt: deadline, key: None, reading: false, streams: Streams::Nothing }
    }

    /// A call with a streaming request, such as an upload. Both bodies are proxied as fast as they are read, without a
    /// time limit, so callers must watch the progress. The call goes to the next replica if connecting fails; after a
    /// replica has read from the request, there is no other attempt.
    pub const fn streaming() -> Self {
        Self { streams: Streams::Both, ..Self::within(FOR_EVER) }
    }

    /// Makes the answer a stream, as for a download. The answer must begin before the deadline, and is proxied as fast
    /// as it is read, so callers must watch the progress.
    pub const fn streaming_answer(self) -> Self {
        Self { streams: Streams::Answer, ..self }
    }

    /// Limits the time of each attempt.
    pub const fn attempt(self, attempt: Duration) -> Self {
        Self { attempt, ..self }
    }

    /// Prefers the replica of this key.
    pub const fn keyed(self, key: u64) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Marks the call as reading: without an answer it fails with `unavailable`, not with an unknown outcome.
    pub const fn reading(self) -> Self {
        Self { reading: true, ..self }
    }

    pub(super) fn of<B>(request: &Request<B>) -> Self {
        // A call without options gets the default deadline, never an endless wait.
        request.extensions().get().copied().unwrap_or(Self::within(Duration::from_millis(2500)))
    }
}

/// Builds a request with these options. Its deadline travels to the service as `grpc-timeout`. A call that may change
/// something also gets the id of an operation, which all attempts have.
pub fn request<T>(message: T, call: Call) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if call.streams == Streams::Nothing {
        request.set_timeout(call.deadline);
    }
    if !call.reading {
        operation::begin(&mut request);
    }
    request.extensions_mut().insert(call);
    request
}

/// Returns the transport to a service in this process: the server itself is the transport. It accepts a caller as over
/// the network, by its role ([`called_by`]). A call without a caller may come from a test only, and has every role.
pub fn in_process<S>(server: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let server = Traced(server.map_response(log_cause));
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        let server = server.clone();
        async move {
            let (call, measured) = (Call::of(&request), Measured::client(&request));
            let span = traced::call(&mut request);
            let peer = *request.extensions_mut().get_or_insert_with(Peer::any);
            if let Err(status) = roles::check(request.uri().path(), peer) {
                let answer = status.into_http();
                measured.answered(&answer);
                return Ok(answer);
            }
            let answer = span.instrument(server.oneshot(request));
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

/// Returns the transport for a caller with this role.
pub(super) fn called_by(transport: Transport, role: Role) -> Transport {
    BoxCloneSyncService::new(transport.map_request(move |mut request: Request<Body>| {
        request.extensions_mut().insert(Peer::with(role));
        request
    }))
}

/// Binds a [`late`] transport to its service.
#[derive(Clone)]
pub struct Binder(Arc<OnceLock<Transport>>);

impl Binder {
    /// Sends calls to this transport from now on. Only the first call of `bind` has an effect.
    pub fn bind(&self, transport: Transport) {
        let _ = self.0.set(transport);
    }
}

/// Returns a transport whose service is bound later, for two services in one process that call each other. Until then
/// calls fail with `unavailable`.
pub fn late() -> (Transport, Binder) {
    let slot = Arc::new(OnceLock::<Transport>::new());
    let binder = Binder(slot.clone());
    let transport = BoxCloneSyncService::new(service_fn(move |request| {
        let bound = slot.get().cloned();
        async move {
            match bound {
                Some(transport) => transport.oneshot(request).await,
                None => Ok(Status::unavailable("the service is starting").into_http()),
            }
        }
    }));
    (transport, binder)
}

//! The network transport: every replica of a service, found by DNS or by list, balanced, dead ones left.
//!
//! Every call of ours is safe to repeat, so a call that one replica does not answer goes to the next until its deadline.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use tower::util::{BoxCloneSyncService, ServiceExt};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::transport::{Call, Transport};

/// How often names are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// How long a replica is left alone that could not be reached.
const AVOID_DEAD: Duration = Duration::from_secs(1);
/// How long a replica is left alone that did not answer in time.
const AVOID_SLOW: Duration = Duration::from_secs(5);

/// The transport to all replicas behind `urls`: one `http://host:port`, or several separated by commas. Each host may
/// resolve to many addresses (a headless Service); it is resolved again every few seconds.
///
/// # Errors
/// When `urls` are not of that form. A name that does not resolve yet is no error.
pub fn connect(urls: &str) -> anyhow::Result<Transport> {
    let targets = urls.split(',').map(|url| target(url.trim())).collect::<anyhow::Result<Vec<_>>>()?;
    let replicas = Arc::new(Replicas {
        targets,
        known: Mutex::default(),
        turn: AtomicUsize::new(0),
        start: Instant::now(),
        resolve: Notify::new(),
        resolved: Notify::new(),
    });
    tokio::spawn(keep_resolving(Arc::downgrade(&replicas)));
    Ok(BoxCloneSyncService::new(service_fn(move |request| {
        let replicas = replicas.clone();
        async move { Ok(replicas.call(request).await) }
    })))
}

/// `host:port` of a URL.
fn target(url: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    match (uri.scheme_str(), uri.host(), uri.port_u16()) {
        (Some("http"), Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        _ => bail!("{url} is not of the form http://host:port"),
    }
}

struct Replicas {
    targets: Vec<String>,
    // A std lock: held for a copy of the list, never across an await.
    known: Mutex<Vec<Arc<Replica>>>,
    turn: AtomicUsize,
    start: Instant,
    resolve: Notify,
    resolved: Notify,
}

struct Replica {
    address: SocketAddr,
    channel: Channel,
    /// Milliseconds since the start of [`Replicas`] until which others are preferred.
    avoid_until: AtomicU64,
    /// Resolutions in a row in which it was missing.
    absences: AtomicU64,
}

impl Replicas {
    fn list(&self) -> Vec<Arc<Replica>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// All replicas, the one to ask first in front: those that work before those that lately did not, then by the
    /// key's preference (rendezvous hashing), or in turn where there is no key.
    fn candidates(&self, key: Option<u64>) -> Vec<Arc<Replica>> {
        let mut list = self.list();
        if list.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
            if let Some(key) = key {
                list.sort_by_cached_key(|replica| Reverse(xxh3_64_with_seed(replica.address.to_string().as_bytes(), key)));
            }
            let now = self.now();
            list.sort_by_key(|replica| replica.avoid_until.load(Ordering::Relaxed) > now);
        }
        list
    }

    fn avoid(&self, replica: &Replica, time: Duration) {
        replica.avoid_until.store(self.now() + time.as_millis() as u64, Ordering::Relaxed);
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let call = Call::of(&request);
        let deadline = Instant::now() + call.deadline;
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return Status::internal("the request could not be encoded").into_http();
        };
        let mut resolved = pin!(self.resolved.notified());
        resolved.as_mut().enable();
        if self.list().is_empty() {
            self.resolve.notify_one();
            let _ = tokio::time::timeout(call.deadline.min(AVOID_DEAD), resolved).await;
        }

        let mut refusal = Status::unavailable("no replica is known");
        // Once an attempt may have been carried out, "nothing was done" can no longer be said.
        let mut unknown = false;
        loop {
            // Whether anybody might come to know more by being asked again.
            let mut alive = false;
            for replica in self.candidates(call.key) {
                let attempt = call.attempt.min(deadline.saturating_duration_since(Instant::now()));
                if attempt.is_zero() {
                    return Status::deadline_exceeded("no answer in time").into_http();
                }
                match tokio::time::timeout(attempt, replica.attempt(&parts, &body)).await {
                    Ok(Ok(answer)) => match Status::from_header_map(answer.headers()) {
                        Some(status) if status.code() == tonic::Code::Unavailable => {
                            self.avoid(&replica, AVOID_DEAD);
                            alive = true;
                            refusal = status;
                        }
                        _ => {
                            replica.avoid_until.store(0, Ordering::Relaxed);
                            return answer;
                        }
                    },
                    Ok(Err(failure)) => {
                        tracing::debug!(replica = %replica.address, cause = %failure.cause, "call failed");
                        self.avoid(&replica, AVOID_DEAD);
                        self.resolve.notify_one();
                        alive |= !failure.connecting;
                        unknown |= !failure.connecting;
                        refusal = Status::unavailable("cannot be reached");
                    }
                    Err(_) => {
                        self.avoid(&replica, AVOID_SLOW);
                        alive = true;
                        unknown = true;
                    }
                }
            }
            if !unknown {
                return refusal.into_http();
            }
            if !alive {
                return Status::deadline_exceeded("nobody is left to say what became of it").into_http();
            }
            // Ask again until somebody knows or time is up; not in a tight loop when all fail at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Why an attempt got no answer.
struct Failure {
    cause: String,
    /// It never reached the replica.
    connecting: bool,
}

impl Failure {
    fn of(error: impl std::error::Error + 'static) -> Self {
        let mut connecting = false;
        let mut cause = error.to_string();
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = source {
            connecting |= error.is::<tonic::ConnectError>();
            cause = error.to_string();
            source = error.source();
        }
        Self { cause, connecting }
    }
}

impl Replica {
    fn new(address: SocketAddr) -> anyhow::Result<Arc<Self>> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_lazy();
        Ok(Arc::new(Self { address, channel, avoid_until: AtomicU64::new(0), absences: AtomicU64::new(0) }))
    }

    /// One attempt, answered whole: a connection that breaks in the middle of an answer is a failed attempt too.
    async fn attempt(&self, parts: &http::request::Parts, body: &Bytes) -> Result<Response<Body>, Failure> {
        let mut request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        *request.version_mut() = http::Version::HTTP_2;
        let answer = self.channel.clone().oneshot(request).await.map_err(Failure::of)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(Failure::of)?;
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

async fn keep_resolving(replicas: Weak<Replicas>) {
    while let Some(replicas) = replicas.upgrade() {
        let mut addresses = Vec::new();
        for target in &replicas.targets {
            match tokio::net::lookup_host(target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::debug!(%target, %error, "cannot resolve"),
            }
        }
        update(&mut replicas.known.lock().unwrap_or_else(PoisonError::into_inner), addresses);
        replicas.resolved.notify_waiters();
        let asked = replicas.clone();
        drop(replicas);
        let _ = tokio::time::timeout(RESOLVE_EVERY, asked.resolve.notified()).await;
        // A name server is not to be asked more often than this, however many calls fail.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Adds new addresses, removes those missing twice; keeps the last set when nothing was found at all.
fn update(known: &mut Vec<Arc<Replica>>, mut addresses: Vec<SocketAddr>) {
    if addresses.is_empty() {
        return;
    }
    addresses.sort();
    addresses.dedup();
    known.retain(|replica| {
        let absences = if addresses.contains(&replica.address) { 0 } else { replica.absences.load(Ordering::Relaxed) + 1 };
        replica.absences.store(absences, Ordering::Relaxed);
        absences < 2
    });
    for address in addresses {
        if !known.iter().any(|replica| replica.address == address) {
            known.extend(Replica::new(address).inspect_err(|error| tracing::warn!(%address, %error, "unusable address")));
        }
    }
    known.sort_by_key(|replica| replica.address);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(target("http://message:50051").unwrap(), "message:50051");
        for bad in ["message:50051", "https://message:1", "http://message", ""] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_replica_leaves_after_two_absences_and_never_the_last_ones() {
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.2:1".parse().unwrap());
        let mut known = Vec::new();
        update(&mut known, vec![a, b]);
        update(&mut known, vec![b]);
        assert_eq!(known.len(), 2);
        update(&mut known, vec![b]);
        assert_eq!(known.len(), 1);
        update(&mut known, vec![]);
        assert_eq!(known[0].address, b);
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_at_once() {
        let transport = connect("http://127.0.0.1:1").unwrap();
        let begun = Instant::now();
        let answer = transport.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), tonic::Code::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

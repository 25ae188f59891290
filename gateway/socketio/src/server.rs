//! The server: carries out the steps of each session's protocol, bounds the memory of all sessions, and drains.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use confab_common::metrics::{LIMITS, at_scrape};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::application::Application;
use crate::budget::{Budget, Cut, Holder};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::ending::Ending;
use crate::frame::Frame;
use crate::last_poll::Route;
use crate::metrics::METRICS;
use crate::net::wire::Outcome;
use crate::net::{ClientAddress, IntoTcp, from_hyper};
use crate::outbox::{Close, MAX_UNKNOWN, Outbox};
use crate::packet::Malformed;
use crate::protocol::{Attachment, Protocol, Step};
use crate::registry::Registry;
use crate::session::{Session, secret};
use crate::transport::Transport;

/// Polling interval for conditions that send no notification.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// The pause between two sessions that the drain closes.
const DRAIN_PACE: Duration = Duration::from_millis(2);
/// How long the drain waits for polling clients that fetch the end of their sessions through other nodes.
const FETCHED_WITHIN: Duration = Duration::from_secs(2);

/// An Engine.IO 4 and Socket.IO 5 server for one application. [`routes`](crate::routes) returns its axum routes.
pub struct Server<A: Application> {
    /// The application.
    pub app: Arc<A>,
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry<A::Client>>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) into_tcp: IntoTcp,
    /// Set when the drain begins and new sessions are rejected: the time within which this node notifies the other
    /// nodes of the sessions that it proxies.
    leaving: watch::Sender<Option<Duration>>,
    /// The tasks that serve or close sessions.
    pub(crate) connections: TaskTracker,
}

/// The first packet of a session. <https://github.com/socketio/engine.io-protocol#handshake>
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open<'a> {
    sid: &'a str,
    upgrades: &'a [&'a str],
    ping_interval: u64,
    ping_timeout: u64,
    max_payload: usize,
}

/// A session or a request to evict.
enum Largest<C> {
    Session(Arc<Session<C>>),
    Request(Weak<dyn Cut>),
}

/// Sessions and requests with the bytes that are held for them.
type Measured<C> = Vec<(usize, Largest<C>)>;

impl<A: Application> Server<A> {
    /// Creates a server of this application on one node, for `axum::serve` or hyper. `registry` must be empty; the
    /// application keeps a clone of it to identify clients. Call this within a Tokio runtime: it spawns a task that
    /// enforces the memory limit until the process ends.
    pub fn new(app: Arc<A>, config: Config, registry: Arc<Registry<A::Client>>) -> Arc<Self> {
        Self::in_cluster(app, config, registry, None, from_hyper)
    }

    /// Creates a server that is a node of a cluster, or that runs behind another HTTP server: `into_tcp` extracts the
    /// TCP stream from that server's upgraded connections. Otherwise the same as [`new`](Self::new).
    pub fn in_cluster(
        app: Arc<A>,
        config: Config,
        registry: Arc<Registry<A::Client>>,
        cluster: Option<Cluster>,
        into_tcp: IntoTcp,
    ) -> Arc<Self> {
        let (leaving, connections) = (watch::channel(None).0, TaskTracker::new());
        let server = Arc::new(Self { app, config, registry, cluster, into_tcp, leaving, connections });
        let registry = server.registry.clone();
        at_scrape(move || {
            METRICS.outbox_bytes.set(registry.budget().bytes() as f64);
            METRICS.pending_sessions.set(registry.pending() as f64);
        });
        tokio::spawn(server.clone().evict_largest());
        server
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        self.registry.budget()
    }

    /// Opens and registers a session for a client at this address, and queues its first packet. `headers` are those of
    /// the first request. `None` while the server drains. The routes call this; applications need it only in tests.
    pub fn open(
        self: &Arc<Self>,
        transport: Transport,
        address: ClientAddress,
        headers: &axum::http::HeaderMap,
    ) -> Option<Arc<Session<A::Client>>> {
        let config = &self.config;
        let (client, held) = self.app.open(headers, address);
        let sid = [self.cluster.as_ref().map_or("", Cluster::own), &secret()].concat().into();
        let outbox = Outbox::of_unknown(self.budget().clone());
        let protocol = Protocol::new(config.max_events_per_second);
        let session = Arc::new(Session::new(self.registry.next_id(), sid, transport, outbox, protocol, client));
        session.outbox.hold(held);
        if let Some(oldest) = self.registry.insert(&session, address, config.max_pending_sessions) {
            LIMITS.hit("pending_sessions");
            self.close(&oldest, Ending::PendingLimit);
        }
        if self.is_leaving() {
            // The session is registered before this check, so the drain either closes it or is visible here.
            self.close(&session, Ending::Draining);
            return None;
        }
        session.outbox.push(Frame::open(&Open {
            sid: session.sid(),
            upgrades: if transport == Transport::WebSocket { &[] } else { &["websocket"] },
            ping_interval: config.ping_interval.as_millis() as u64,
            ping_timeout: config.ping_timeout.as_millis() as u64,
            // Clients may use 32-bit integers.
            max_payload: config.max_packet.min(i32::MAX as usize),
        }));
        Some(session)
    }

    /// Handles an Engine.IO text packet from a client. After the last packet of those that arrived together, the caller
    /// must call [`settled`](Self::settled). The routes call this; applications need it only in tests.
    ///
    /// # Errors
    /// [`Malformed`] for a packet that no conforming client sends; the caller closes the session.
    pub fn receive(&self, session: &Arc<Session<A::Client>>, packet: &str) -> Result<(), Malformed> {
        session.touch();
        let counted = if Protocol::may_wait(packet) { packet.len() } else { 0 };
        if counted > 0 {
            session.outbox.hold(counted);
        }
        let step = session.protocol.text(packet, session.is_known());
        if counted > 0 && !matches!(step, Ok(Step::Waiting)) {
            session.outbox.release(counted);
        }
        self.take(session, step?)
    }

    /// Handles a binary packet, which must be an attachment.
    ///
    /// # Errors
    /// [`Malformed`] as for [`receive`](Self::receive), and for an attachment over the packet limit.
    pub fn receive_binary(&self, session: &Arc<Session<A::Client>>, data: Bytes) -> Result<(), Malformed> {
        session.touch();
        let length = data.len();
        session.outbox.hold(length);
        match session.protocol.binary(data, self.max_packet(session)) {
            Ok(Attachment::Waiting) => Ok(()),
            Ok(Attachment::Complete(partial)) => {
                session.outbox.release(partial.bytes());
                self.take(session, session.protocol.complete(&partial)?)
            }
            Err(malformed) => {
                session.outbox.release(length);
                Err(malformed)
            }
        }
    }

    fn take(&self, session: &Arc<Session<A::Client>>, step: Step<'_>) -> Result<(), Malformed> {
        match step {
            Step::Nothing | Step::Waiting => {}
            Step::Reply(frame) => session.outbox.push(frame),
            Step::Connect(auth) => self.app.connect(session, auth),
            Step::Event(event) => return self.app.event(session, event),
            Step::Left => self.app.left(session),
            Step::Disconnected => {
                self.app.left(session);
                session.close_after_flush(Ending::ClientClosed);
            }
            Step::Closed => session.close_by_client(),
        }
        Ok(())
    }

    /// Reports to the application that all packets which arrived together have been handled.
    pub fn settled(&self, session: &Arc<Session<A::Client>>) {
        self.app.settled(session);
    }

    /// The largest packet that the client may send now, in bytes.
    pub(crate) fn max_packet(&self, session: &Session<A::Client>) -> usize {
        let most = self.config.max_packet;
        if session.is_known() { most } else { most.min(MAX_UNKNOWN) }
    }

    /// Whether the answer that took this route has reached the session's client.
    pub(crate) async fn outcome(&self, route: &Route, sid: &str) -> Outcome {
        match (route, &self.cluster) {
            (Route::Here(answer), _) => answer.outcome().await,
            (Route::Through(passage), Some(cluster)) => cluster.outcome(*passage, sid).await,
            (Route::Through(_), None) | (Route::Unknown, _) => Outcome::Unknown,
            // As other servers assume: otherwise a client whose `t` does not change would receive packets twice.
            (Route::Untracked, _) => Outcome::Delivered,
        }
    }

    /// Ends a session after its transport has closed or must not be used any more: removes all references to it. The
    /// first of several causes counts. Idempotent.
    pub fn close(&self, session: &Arc<Session<A::Client>>, ending: Ending) {
        let transport = session.end_transport();
        if transport == Transport::Closed {
            return;
        }
        if ending != Ending::ConnectionLost {
            // The outbox closes a session on its own; what its requests then report is only a consequence.
            session.record_ending(session.outbox.cause().unwrap_or(ending));
        }
        let ending = session.ending();
        METRICS.session_ends.hit(ending.code());
        tracing::debug!(session = session.id(), ?transport, %ending, cause = ending.cause(), "session ended");
        session.end_protocol();
        session.outbox.release_all();
        self.registry.remove(session);
        self.app.closed(session);
    }

    /// While the bytes held for all clients exceed the limit, ends sessions and requests of the holder with the most
    /// bytes, the largest first, then those of the next holder. The clients reconnect and request the events that they
    /// missed.
    async fn evict_largest(self: Arc<Self>) {
        loop {
            self.budget().exceeded().await;
            // Bytes of evicted sessions and requests that will be released shortly.
            let mut leaving = 0;
            let mut sessions = self.sessions_with_bytes();
            'holders: for (holder, share) in self.budget().largest() {
                let requests = share.held().into_iter().map(|(bytes, cut)| (bytes, Largest::Request(cut)));
                let mut all = sessions.remove(&holder).unwrap_or_default();
                all.extend(requests.filter(|(bytes, _)| *bytes > 0));
                all.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
                for (bytes, largest) in all {
                    if self.budget().excess() <= leaving {
                        break 'holders;
                    }
                    leaving += self.evict(largest, bytes);
                }
            }
            drop(sessions);
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// The sessions for which bytes are held, by holder.
    fn sessions_with_bytes(&self) -> HashMap<Holder, Measured<A::Client>> {
        let mut sessions = HashMap::<Holder, Vec<_>>::new();
        for session in self.registry.all() {
            let bytes = session.outbox.bytes();
            if bytes > 0
                && let Some(holder) = session.outbox.share().holder()
            {
                sessions.entry(holder).or_default().push((bytes, Largest::Session(session)));
            }
        }
        sessions
    }

    /// Evicts a session or a request; returns the number of its bytes that are not released yet.
    fn evict(&self, largest: Largest<A::Client>, bytes: usize) -> usize {
        match largest {
            Largest::Session(session) => {
                if session.outbox.closing() != Some(Close::Now) {
                    session.end_protocol();
                    self.app.evicted(&session);
                    session.evict();
                }
                session.outbox.bytes()
            }
            Largest::Request(connection) => {
                METRICS.outbox_closes.hit("total");
                connection.upgrade().inspect(|connection| connection.cut());
                bytes
            }
        }
    }

    /// Rejects new sessions with 503 and closes the existing ones at the transport, one after another within `window`,
    /// so that the clients reconnect to other nodes at different times. Returns when no session is left, or after
    /// `window`.
    pub async fn drain(&self, window: Duration) {
        let deadline = Instant::now() + window;
        let served = self.connections.len().max(self.registry.count()) as u32;
        self.leaving.send_replace(Some((DRAIN_PACE * served).min(window / 2)));
        let sessions = self.registry.all();
        let pause = (window / 2).checked_div(sessions.len() as u32).unwrap_or_default().min(DRAIN_PACE);
        for session in sessions {
            self.leave(session, window / 2);
            sleep(pause).await;
        }
        self.connections.close();
        let _ = timeout_at(deadline, self.connections.wait()).await;
        let fetched = async {
            while self.cluster.is_some() && self.registry.count() > 0 {
                sleep(CHECK_INTERVAL).await;
            }
        };
        let _ = timeout_at(deadline.min(Instant::now() + FETCHED_WITHIN), fetched).await;
    }

    /// Moves a client to another node: the application warns the client and finishes its events, then the server closes
    /// the transport.
    pub(crate) fn leave(&self, session: Arc<Session<A::Client>>, within: Duration) {
        let app = self.app.clone();
        self.connections.spawn(async move {
            let _ = timeout(within, app.leave(&session)).await;
            session.close_after_flush(Ending::Draining);
        });
    }

    /// Whether the server drains and rejects new sessions.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// Completes when the server begins to drain; returns the time left for tunnels and proxied requests.
    pub(crate) async fn leaving(&self) -> Duration {
        let mut leaving = self.leaving.subscribe();
        match leaving.wait_for(Option::is_some).await.map(|window| *window) {
            Ok(Some(window)) => window,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;

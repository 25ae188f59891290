//! The server: takes the steps of each session's protocol, bounds what all sessions hold, and drains.

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
use crate::last_poll::Way;
use crate::metrics::METRICS;
use crate::net::wire::Fate;
use crate::net::{ClientAddress, IntoTcp, from_hyper};
use crate::outbox::{Close, MAX_UNKNOWN, Outbox};
use crate::packet::Malformed;
use crate::protocol::{Attachment, Protocol, Step};
use crate::registry::Registry;
use crate::session::{Session, secret};
use crate::transport::Transport;

/// Polling interval for conditions that send no notification.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// While draining: the time between closing one client and the next.
const DRAIN_PACE: Duration = Duration::from_millis(2);
/// How long a polling client may take to fetch the end of its session through another node.
const FETCHED_WITHIN: Duration = Duration::from_secs(2);

/// A server of one application.
pub struct Server<A: Application> {
    /// The application.
    pub app: Arc<A>,
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry<A::Client>>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) into_tcp: IntoTcp,
    /// Set once new sessions are refused: the time within which other nodes learn that the sessions forwarded to them must
    /// move.
    leaving: watch::Sender<Option<Duration>>,
    /// Tasks that serve sessions or close them.
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

/// A session or a request for which much is held.
enum Largest<C> {
    Session(Arc<Session<C>>),
    Request(Weak<dyn Cut>),
}

impl<A: Application> Server<A> {
    /// A server of this application on one node, for `axum::serve` or hyper. `registry` is empty; the application may keep
    /// it to identify clients. Must be called within a Tokio runtime; a task bounds the held bytes until the end of the
    /// process.
    pub fn new(app: Arc<A>, config: Config, registry: Arc<Registry<A::Client>>) -> Arc<Self> {
        Self::in_cluster(app, config, registry, None, from_hyper)
    }

    /// The same as a node of a cluster, with an HTTP server whose upgraded connections `into_tcp` takes apart.
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

    /// The bytes held for all clients.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        self.registry.budget()
    }

    /// Opens and registers a session for a client at that address, and queues its first packet; `None` when the server is
    /// draining. `headers` are those of the first request.
    pub fn open(
        self: &Arc<Self>,
        transport: Transport,
        address: ClientAddress,
        headers: &axum::http::HeaderMap,
    ) -> Option<Arc<Session<A::Client>>> {
        let config = &self.config;
        let (client, held) = self.app.open(headers);
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
            // Registered before the check: a session that opens at this moment is either refused here or closed by the
            // drain.
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

    /// Takes an Engine.IO text packet from a client. [`settled`](Self::settled) must follow once everything that arrived
    /// with it has been taken.
    ///
    /// # Errors
    /// When it is malformed; the caller closes the session.
    pub fn receive(&self, session: &Arc<Session<A::Client>>, packet: &str) -> Result<(), Malformed> {
        session.touch();
        let step = session.protocol.text(packet, session.is_known())?;
        self.take(session, step)
    }

    /// Takes a binary packet, which can only be an attachment.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_binary(&self, session: &Arc<Session<A::Client>>, data: Bytes) -> Result<(), Malformed> {
        session.touch();
        match session.protocol.binary(data, self.max_packet(session))? {
            Attachment::Hold(bytes) => session.outbox.hold(bytes),
            Attachment::Complete(partial, counted) => {
                session.outbox.release(counted);
                self.take(session, session.protocol.complete(&partial)?)?;
            }
        }
        Ok(())
    }

    fn take(&self, session: &Arc<Session<A::Client>>, step: Step<'_>) -> Result<(), Malformed> {
        match step {
            Step::Nothing => {}
            Step::Reply(frame) => session.outbox.push(frame),
            Step::Connect(auth) => self.app.connect(session, auth),
            Step::Event(event) => return self.app.event(session, event),
            Step::Hold(bytes) => session.outbox.hold(bytes),
            Step::Left => self.app.left(session),
            Step::Disconnected => {
                self.app.left(session);
                session.close_after_flush(Ending::ClientClosed);
            }
            Step::Closed => session.give_up(),
        }
        Ok(())
    }

    /// Everything that arrived together from a client has been taken.
    pub fn settled(&self, session: &Arc<Session<A::Client>>) {
        self.app.settled(session);
    }

    /// Most bytes of one packet from the client.
    pub(crate) fn max_packet(&self, session: &Session<A::Client>) -> usize {
        let most = self.config.max_packet;
        if session.is_known() { most } else { most.min(MAX_UNKNOWN) }
    }

    /// What became of an answer that took this way to the client of a session.
    pub(crate) async fn fate(&self, way: &Way, sid: &str) -> Fate {
        match (way, &self.cluster) {
            (Way::Here(answer), _) => answer.fate().await,
            (Way::Through(passage), Some(cluster)) => cluster.fate(*passage, sid).await,
            (Way::Through(_), None) | (Way::Unknown, _) => Fate::Unknown,
        }
    }

    /// The transport is gone, or must not be used any more: removes all references to the session. Of several causes the
    /// first one counts. Idempotent.
    pub fn close(&self, session: &Arc<Session<A::Client>>, ending: Ending) {
        let transport = session.end_transport();
        if transport == Transport::Closed {
            return;
        }
        if ending != Ending::ConnectionLost {
            session.because(ending);
        }
        let ending = session.ending();
        METRICS.session_ends.hit(ending.code());
        tracing::debug!(session = session.id(), ?transport, %ending, cause = ending.cause(), "session ended");
        session.outbox.release(session.protocol.end());
        session.outbox.release_all();
        self.registry.remove(session);
        self.app.closed(session);
    }

    /// While too much is held for all clients together, ends sessions and requests of the holder with most, the largest
    /// first, then of the next holder. The clients reconnect and ask for what they missed.
    async fn evict_largest(self: Arc<Self>) {
        loop {
            self.budget().exceeded().await;
            // What was ended may still hold bytes that are about to be released.
            let mut leaving = 0;
            let mut sessions = HashMap::<Holder, Vec<_>>::new();
            for session in self.registry.all() {
                if let Some(holder) = session.outbox.share().holder() {
                    sessions.entry(holder).or_default().push((session.outbox.bytes(), Largest::Session(session)));
                }
            }
            'holders: for (holder, share) in self.budget().largest() {
                let requests = share.held().into_iter().map(|(bytes, cut)| (bytes, Largest::Request(cut)));
                let mut all = sessions.remove(&holder).unwrap_or_default();
                all.extend(requests);
                all.retain(|(bytes, _)| *bytes > 0);
                all.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
                for (bytes, largest) in all {
                    if self.budget().excess() <= leaving {
                        break 'holders;
                    }
                    leaving += self.evict(largest, bytes);
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends it; returns how many of its bytes are still held for a moment.
    fn evict(&self, largest: Largest<A::Client>, bytes: usize) -> usize {
        match largest {
            Largest::Session(session) => {
                if session.outbox.closing() != Some(Close::Now) {
                    session.outbox.release(session.protocol.end());
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

    /// Refuses new sessions and closes the existing ones at the transport, one after another within `window`, so that
    /// the clients reconnect to other nodes, and not all at once. Returns when no session is left or the window is
    /// over.
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
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout_at(deadline.min(Instant::now() + FETCHED_WITHIN), fetched).await;
    }

    /// Moves a client to another node: the application warns it and finishes its events, then its transport is closed.
    pub(crate) fn leave(&self, session: Arc<Session<A::Client>>, within: Duration) {
        let app = self.app.clone();
        self.connections.spawn(async move {
            let _ = timeout(within, app.leave(&session)).await;
            session.close_after_flush(Ending::Draining);
        });
    }

    /// Whether new sessions are refused.
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

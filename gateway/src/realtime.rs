//! Real time: our own Engine.IO 4 / Socket.IO 5 server, the hub that fans events out, and the follower of the log.

mod events;
mod file_upload;
pub mod forward;
mod handshake;
mod join;
pub(crate) mod outbox;
mod pause;
mod peers;
mod polling;
mod post;
mod recovery;
mod refusal;
mod registry;
mod session;
mod socket;
#[cfg(test)]
pub(crate) mod testing;
mod websocket;

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use confab_common::bus::Bus;
use confab_common::metrics::at_scrape;
use confab_common::process::Process;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::forward::Forward;
use self::outbox::Close;
use self::registry::Registry;
use self::session::Session;
use crate::clients::Clients;
use crate::config::RealtimeConfig;
use crate::edge::cors::Origins;
use crate::memory::{Cut, Memory};
use crate::metrics::METRICS;
use crate::revocations::Revocations;
use crate::rooms::follower::Follower;
use crate::rooms::history::History;
use crate::rooms::hub::Hub;
use crate::send::Sender;
use crate::tokens::Tokens;

/// How many clients are recovered at once.
const RESTORES: usize = 64;

/// Polling interval for conditions that send no notification.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// While draining: the time between closing one client and the next.
const PACE: Duration = Duration::from_millis(2);

/// How long a polling client may take to fetch the end of its session through another gateway.
const FETCHED_WITHIN: Duration = Duration::from_secs(2);

/// What all sessions of this gateway share.
pub struct Realtime {
    config: RealtimeConfig,
    clients: Clients,
    sender: Sender,
    tokens: Tokens,
    pub(crate) revocations: Revocations,
    origins: Origins,
    forward: Option<Forward>,
    pub(crate) hub: Arc<Hub<Session>>,
    pub(crate) follower: Arc<Follower<Session>>,
    history: Arc<History>,
    /// What is held for clients.
    pub(crate) memory: Arc<Memory>,
    registry: Registry,
    /// Set once new sessions are refused: the time within which other gateways learn that their forwarded sessions must
    /// move.
    leaving: watch::Sender<Option<Duration>>,
    /// Bounds recoveries in progress: each holds the events that its client missed.
    restores: Arc<Semaphore>,
    /// Tasks that serve sessions or close them.
    connections: TaskTracker,
}

/// A session or a request for which much is held.
enum Largest {
    Session(Arc<Session>),
    Request(Weak<dyn Cut>),
}

impl Largest {
    /// Ends it; returns how many of its bytes are still held for a moment.
    fn end(self, bytes: usize) -> usize {
        match self {
            Self::Session(session) => {
                if session.outbox.closing() != Some(Close::Now) {
                    session.give_up();
                }
                session.outbox.bytes()
            }
            Self::Request(connection) => {
                METRICS.outbox_closes.hit("total");
                connection.upgrade().inspect(|connection| connection.cut());
                bytes
            }
        }
    }
}

/// The parts of the gateway that real time uses.
pub struct Parts {
    /// Limits and times.
    pub config: RealtimeConfig,
    /// The services.
    pub clients: Clients,
    /// Sends messages to the log.
    pub sender: Sender,
    /// Verifies tokens.
    pub tokens: Tokens,
    /// Knows which sessions are logged out.
    pub revocations: Revocations,
    /// The pages that may connect.
    pub origins: Origins,
    /// Counts what is held for clients.
    pub memory: Arc<Memory>,
    /// Forwards to other gateways, if there are any.
    pub forward: Option<Forward>,
}

impl Realtime {
    /// Starts following the log and the revocations.
    pub fn start(parts: Parts, bus: &Bus, process: &Process) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let follower = Follower::start(hub.clone(), parts.clients.clone(), bus, process);
        let realtime = Arc::new(Self {
            memory: parts.memory,
            history: History::new(parts.clients.clone()),
            config: parts.config,
            clients: parts.clients,
            sender: parts.sender,
            tokens: parts.tokens,
            revocations: parts.revocations,
            origins: parts.origins,
            forward: parts.forward,
            hub,
            follower,
            registry: Registry::default(),
            leaving: watch::channel(None).0,
            restores: Arc::new(Semaphore::new(RESTORES)),
            connections: TaskTracker::new(),
        });
        let memory = realtime.memory.clone();
        at_scrape(move || METRICS.outbox_bytes.set(memory.bytes() as f64));
        let sessions = realtime.clone();
        at_scrape(move || METRICS.pending_sessions.set(sessions.registry.pending() as f64));
        // Subscribed before the first client can connect, so that no revocation is missed.
        tokio::spawn(realtime.clone().close_revoked(realtime.revocations.subscribe()));
        tokio::spawn(realtime.clone().close_largest());
        tokio::spawn(pause::watch(realtime.clone()));
        realtime
    }

    /// The routes of `/socket.io/`.
    pub fn router(self: &Arc<Self>) -> Router {
        handshake::router(self.clone())
    }

    /// The routes for other gateways.
    pub fn forward_router(self: &Arc<Self>) -> Router {
        peers::router(self.clone())
    }

    async fn close_revoked(self: Arc<Self>, mut revoked: UnboundedReceiver<Uuid>) {
        while let Some(session_id) = revoked.recv().await {
            for session in self.registry.of_token(session_id) {
                session.end("logged_out");
            }
        }
    }

    /// While too much is held for all clients together, ends sessions and requests of the user with most, the largest
    /// first, then of the next user. The clients reconnect and ask for what they missed. Clients whose user is not
    /// known count as one user per address.
    async fn close_largest(self: Arc<Self>) {
        loop {
            self.memory.over().await;
            // What was ended may still hold bytes that are about to be released.
            let mut leaving = 0;
            'holders: for (holder, share) in self.memory.largest() {
                let sessions =
                    self.registry.of_holder(holder).into_iter().map(|session| (session.outbox.bytes(), Largest::Session(session)));
                let requests = share.held().into_iter().map(|(bytes, cut)| (bytes, Largest::Request(cut)));
                let mut all = sessions.chain(requests).filter(|(bytes, _)| *bytes > 0).collect::<Vec<_>>();
                all.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
                for (bytes, largest) in all {
                    if self.memory.excess() <= leaving {
                        break 'holders;
                    }
                    leaving += largest.end(bytes);
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Refuses new sessions and closes the existing ones at the transport, one after another within `window`, so that
    /// the clients reconnect to other gateways, and not all at once. Returns when no session is left or the window is
    /// over.
    pub async fn drain(&self, window: Duration) {
        let deadline = Instant::now() + window;
        let carried = self.connections.len().max(self.registry.len()) as u32;
        self.leaving.send_replace(Some((PACE * carried).min(window / 2)));
        let sessions = self.registry.all();
        let pause = (window / 2).checked_div(sessions.len() as u32).unwrap_or_default().min(PACE);
        for session in sessions {
            self.connections.spawn(async move { session.go_away(window / 2).await });
            sleep(pause).await;
        }
        self.connections.close();
        let _ = timeout_at(deadline, self.connections.wait()).await;
        let fetched = async {
            while self.forward.is_some() && self.registry.len() > 0 {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout_at(deadline.min(Instant::now() + FETCHED_WITHIN), fetched).await;
    }

    /// Whether new sessions are refused.
    fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// Completes when the gateway begins to drain; returns the time left for tunnels and forwarded requests.
    async fn leaving(&self) -> Duration {
        let mut leaving = self.leaving.subscribe();
        match leaving.wait_for(Option::is_some).await.map(|window| *window) {
            Ok(Some(window)) => window,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;

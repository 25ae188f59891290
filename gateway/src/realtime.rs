//! Real time: our own Engine.IO 4 / Socket.IO 5 edge, the hub of who hears what, the follower of the log.

mod allowance;
mod events;
mod file_upload;
mod follower;
pub mod forward;
mod handshake;
mod history;
mod hub;
mod inbound;
mod join;
mod lag;
mod outbox;
mod packet;
mod partition;
mod pause;
mod polling;
mod recovery;
mod registry;
mod session;
mod socket;
#[cfg(test)]
mod testing;
mod websocket;

use std::cmp::Reverse;
use std::sync::Arc;
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

use self::follower::Follower;
use self::forward::Forward;
use self::history::History;
use self::hub::Hub;
use self::outbox::Close;
use self::registry::Registry;
use self::session::Session;
use crate::clients::Clients;
use crate::config::RealtimeConfig;
use crate::edge::cors::Origins;
use crate::metrics::METRICS;
use crate::revocations::Revocations;
use crate::send::Sender;
use crate::tokens::Tokens;

/// How many clients are brought back at once.
const RESTORES: usize = 64;

/// How soon is looked again for what nobody tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// When the gateway leaves, from one client to the next.
const PACE: Duration = Duration::from_millis(2);

/// How long a client that polls may take to fetch the end of its session by way of another gateway.
const FETCHED_WITHIN: Duration = Duration::from_secs(2);

/// What all sessions of this gateway share.
pub struct Realtime {
    config: RealtimeConfig,
    clients: Clients,
    sender: Sender,
    tokens: Tokens,
    revocations: Revocations,
    origins: Origins,
    forward: Option<Forward>,
    hub: Arc<Hub<Session>>,
    follower: Arc<Follower>,
    history: Arc<History>,
    outboxes: Arc<outbox::Shared>,
    registry: Registry,
    /// From when on new sessions are refused: within what time other gateways are told of what passes through this one.
    leaving: watch::Sender<Option<Duration>>,
    /// Few clients are brought back at once: what each has missed is held meanwhile.
    restores: Arc<Semaphore>,
    /// Tasks that carry sessions, or take leave of them.
    connections: TaskTracker,
}

/// What real time needs of the rest of the gateway.
pub struct Parts {
    /// Limits and times.
    pub config: RealtimeConfig,
    /// The services.
    pub clients: Clients,
    /// The way of messages to the log.
    pub sender: Sender,
    /// Verifies tokens.
    pub tokens: Tokens,
    /// Knows revoked ones.
    pub revocations: Revocations,
    /// Which pages may connect.
    pub origins: Origins,
    /// The way to other gateways, if there are any.
    pub forward: Option<Forward>,
}

impl Realtime {
    /// Starts following the log and the revocations.
    pub fn start(parts: Parts, bus: &Bus, process: &Process) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let follower = Follower::start(hub.clone(), parts.clients.clone(), bus, process);
        let realtime = Arc::new(Self {
            outboxes: Arc::new(outbox::Shared::new(parts.config.max_outbox_bytes, parts.revocations.pulse().clone())),
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
        let outboxes = realtime.outboxes.clone();
        at_scrape(move || METRICS.outbox_bytes.set(outboxes.bytes() as f64));
        let sessions = realtime.clone();
        at_scrape(move || METRICS.pending_sessions.set(sessions.registry.pending() as f64));
        // Subscribed before anything can be revoked that matters here.
        tokio::spawn(realtime.clone().close_revoked(realtime.revocations.subscribe()));
        tokio::spawn(realtime.clone().close_largest());
        tokio::spawn(pause::watch(realtime.clone()));
        realtime
    }

    /// The routes of `/socket.io/`.
    pub fn router(self: &Arc<Self>) -> Router {
        handshake::router(self.clone())
    }

    /// The same for other gateways.
    pub fn forward_router(self: &Arc<Self>) -> Router {
        forward::router(self.clone())
    }

    async fn close_revoked(self: Arc<Self>, mut revoked: UnboundedReceiver<Uuid>) {
        while let Some(session_id) = revoked.recv().await {
            for session in self.registry.of_token(session_id) {
                session.end("logged_out");
            }
        }
    }

    /// Whenever too much is held for all clients together, closes sessions of the user for whom most is, the largest first, then of
    /// the next: they come back and ask for what they missed. Clients that have not connected are one user for each address.
    async fn close_largest(self: Arc<Self>) {
        loop {
            self.outboxes.over().await;
            // What closed sessions still hold is on its way out.
            let mut leaving = 0;
            'holders: for (holder, _) in self.registry.holders() {
                let sessions = self.registry.of_holder(holder).into_iter().map(|session| (session.outbox.bytes(), session));
                let mut sessions = sessions.filter(|(bytes, _)| *bytes > 0).collect::<Vec<_>>();
                sessions.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
                for (_, session) in sessions {
                    if self.outboxes.excess() <= leaving {
                        break 'holders;
                    }
                    if session.outbox.closing() != Some(Close::Now) {
                        session.give_up();
                    }
                    leaving += session.outbox.bytes();
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes no new sessions and closes those there are at the transport, one after another within `window`, so that the
    /// clients come back to another gateway, and not all at once. Returns when none is left or the window is over.
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

    /// Completes when the gateway leaves; within what time it is to take leave of what passes through it.
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

//! The timers of a session.

use std::sync::atomic::Ordering;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_socketio::Frame;
use tokio::time::Instant;

use super::Session;

/// How often a session that has not connected is checked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Further ahead than any deadline that matters.
const FAR: Duration = Duration::from_secs(3600);

/// The timers of a session's transport: pings and their answers, the time to CONNECT, the token's end.
pub struct Heartbeat {
    connect_by: Instant,
    next_ping: Instant,
    /// When the last ping must be answered, and the number of signs of life when it was sent.
    awaited: Option<(Instant, u64)>,
    /// When to check the token; known once the client has connected.
    expires: Option<Instant>,
}

impl Heartbeat {
    /// Starts now.
    pub fn new(session: &Session) -> Self {
        let (now, config) = (Instant::now(), &session.edge.config);
        Self { connect_by: now + config.connect_timeout, next_ping: now + config.ping_interval, awaited: None, expires: None }
    }

    /// When [`tick`](Self::tick) is due. Called at every turn of a transport, so it does not read the clock once
    /// connected.
    pub fn next(&mut self, session: &Session) -> Instant {
        if self.expires.is_none() {
            self.expires = session.socket.identity().map(|identity| Instant::now() + identity.left());
        }
        let other = self.expires.unwrap_or_else(|| self.connect_by.min(Instant::now() + LOOK_AGAIN));
        let awaited = self.awaited.map_or(other, |(by, _)| by);
        self.next_ping.min(awaited).min(other)
    }

    /// Does what is due; `false` when the client counts as gone.
    pub fn tick(&mut self, session: &Session) -> bool {
        let now = Instant::now();
        let seen = session.seen.load(Ordering::Relaxed);
        match session.socket.identity() {
            None if now >= self.connect_by => {
                LIMITS.hit("connect_timeout");
                return false;
            }
            Some(identity) if self.expires.is_some_and(|at| now >= at) => {
                let left = identity.left();
                if left.is_zero() && session.outbox.closing().is_none() {
                    session.end("expired");
                }
                // If the client does not fetch the end, the pings notice.
                self.expires = Some(now + if left.is_zero() { FAR } else { left });
            }
            _ => {}
        }
        if let Some((by, before)) = self.awaited {
            if seen > before {
                self.awaited = None;
            } else if now >= by {
                return false;
            }
        }
        if now >= self.next_ping {
            session.outbox.push(Frame::engine("2"));
            self.awaited.get_or_insert((now + session.edge.config.ping_timeout, seen));
            self.next_ping = now + session.edge.config.ping_interval;
        }
        true
    }
}

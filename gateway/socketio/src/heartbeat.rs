//! The timers of a session's transport: pings and their answers, the time to CONNECT, and the application's own.

use std::sync::Arc;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use tokio::time::Instant;

use crate::application::Application;
use crate::config::Config;
use crate::ending::Ending;
use crate::frame::Frame;
use crate::session::Session;

/// How often a session that has not been identified is checked.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Further ahead than any deadline that matters.
const FAR: Duration = Duration::from_secs(3600);

/// The timers of a session's transport.
pub struct Heartbeat {
    connect_by: Instant,
    next_ping: Instant,
    /// When the last ping must be answered, and the number of signs of life when it was sent.
    awaited: Option<(Instant, u64)>,
    /// When the application's tick is due; known once the client has been identified.
    due: Option<Instant>,
}

impl Heartbeat {
    /// Starts now.
    pub fn new(config: &Config) -> Self {
        let now = Instant::now();
        Self {
            connect_by: now + config.connect_timeout,
            next_ping: now + config.ping_interval,
            awaited: None,
            due: None,
        }
    }

    /// When [`tick`](Self::tick) is due. Called at every turn of a transport, so it does not read the clock once the client
    /// has been identified.
    pub fn next<A: Application>(&mut self, app: &A, session: &Session<A::Client>) -> Instant {
        if self.due.is_none() && session.is_known() {
            self.due = Some(app.due(&session.client).unwrap_or_else(|| Instant::now() + FAR));
        }
        let other = self.due.unwrap_or_else(|| self.connect_by.min(Instant::now() + LOOK_AGAIN));
        let awaited = self.awaited.map_or(other, |(by, _)| by);
        self.next_ping.min(awaited).min(other)
    }

    /// Does what is due; the error is the reason to close the session.
    pub fn tick<A: Application>(
        &mut self,
        app: &Arc<A>,
        config: &Config,
        session: &Session<A::Client>,
    ) -> Result<(), Ending> {
        let now = Instant::now();
        let seen = session.seen();
        if !session.is_known() && now >= self.connect_by {
            LIMITS.hit("connect_timeout");
            return Err(Ending::ConnectTimeout);
        }
        if self.due.is_some_and(|at| now >= at) {
            self.due = Some(app.tick(session).unwrap_or(now + FAR));
        }
        if let Some((by, before)) = self.awaited {
            if seen > before {
                self.awaited = None;
            } else if now >= by {
                return Err(Ending::PingTimeout);
            }
        }
        if now >= self.next_ping {
            session.outbox.push(Frame::engine("2"));
            self.awaited.get_or_insert((now + config.ping_timeout, seen));
            self.next_ping = now + config.ping_interval;
        }
        Ok(())
    }
}

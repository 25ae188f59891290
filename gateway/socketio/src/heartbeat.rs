//! The timers of a session's transport: pings, the ping timeout, the connect timeout, and the application's tick.
//! <https://github.com/socketio/engine.io-protocol#heartbeat>

use std::sync::Arc;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use tokio::time::Instant;

use crate::application::Application;
use crate::config::Config;
use crate::ending::Ending;
use crate::frame::Frame;
use crate::session::Session;

/// How often the timers check whether the client has been identified.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Used when the application has no tick; the timer is then checked once an hour.
const FAR: Duration = Duration::from_secs(3600);

/// The timers of a session's transport.
pub struct Heartbeat {
    connect_by: Instant,
    next_ping: Instant,
    /// The deadline of the last ping, and the value of `Session::seen` when the ping was queued.
    awaited: Option<(Instant, u64)>,
    /// When the application's tick is due; `None` until the client is identified.
    due: Option<Instant>,
}

impl Heartbeat {
    pub fn new(config: &Config) -> Self {
        let now = Instant::now();
        Self {
            connect_by: now + config.connect_timeout,
            next_ping: now + config.ping_interval,
            awaited: None,
            due: None,
        }
    }

    /// When [`tick`](Self::tick) is due. The transport calls this after every packet, so it does not read the clock
    /// once the client is identified.
    pub fn next<A: Application>(&mut self, app: &A, session: &Session<A::Client>) -> Instant {
        if self.due.is_none() && session.is_known() {
            self.due = Some(app.due(&session.client).unwrap_or_else(|| Instant::now() + FAR));
        }
        let other = self.due.unwrap_or_else(|| self.connect_by.min(Instant::now() + CHECK_INTERVAL));
        let awaited = self.awaited.map_or(other, |(by, _)| by);
        self.next_ping.min(awaited).min(other)
    }

    /// Runs the timers that are due.
    ///
    /// # Errors
    /// [`Ending::ConnectTimeout`] or [`Ending::PingTimeout`]; the caller closes the session.
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

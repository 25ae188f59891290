//! After a pause: a gateway that stood still (SIGSTOP, a frozen machine) does not know who has logged out since. It writes
//! nothing before it does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Realtime;
use crate::metrics::METRICS;
use crate::pulse::now;

/// How often it is looked whether the clock goes.
const BEAT: Duration = Duration::from_millis(250);
/// Pause before it is asked again what was missed.
const RETRY: Duration = Duration::from_millis(100);

/// Watches the clock.
pub async fn watch(realtime: Arc<Realtime>) {
    loop {
        if !realtime.revocations.pulse().beat() {
            tracing::warn!("this process stood still; it writes nothing before it has read what it missed");
            METRICS.pauses.increment(1);
            while !realtime.catch_up().await {
                sleep(RETRY).await;
            }
            // Those who wanted to write meanwhile.
            realtime.registry.all().iter().for_each(|session| session.outbox.nudge());
        }
        sleep(BEAT).await;
    }
}

impl Realtime {
    /// Reads revocations and heads, ends the sessions of those who have logged out, and has outboxes written again. `false` when
    /// somebody did not answer, or the process stood still again meanwhile.
    async fn catch_up(&self) -> bool {
        let begin = now();
        let (revocations, heads) = tokio::join!(self.revocations.catch_up(), self.follower.catch_up());
        if revocations.is_err() || !heads {
            return false;
        }
        for session in self.registry.all() {
            // They are told of, too, but perhaps later than the others are written.
            if session.socket.identity().is_some_and(|identity| self.revocations.is_revoked(identity.session_id)) {
                session.end("logged_out");
            }
        }
        self.revocations.pulse().resume(begin)
    }
}

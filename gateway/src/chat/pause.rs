//! After a pause (SIGSTOP, a frozen machine) a gateway does not know which sessions have logged out since. It writes
//! nothing until it has read that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::context::Chat;
use crate::metrics::METRICS;
use confab_common::standstill::now;

/// How often the clock is read.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Pause before the next attempt to catch up.
const RETRY: Duration = Duration::from_millis(100);

/// Watches the clock.
pub async fn watch(chat: Arc<Chat>) {
    loop {
        if !chat.revocations.pauses().observe() {
            tracing::warn!("this process stood still; it writes nothing until it has caught up");
            METRICS.pauses.increment(1);
            while !chat.catch_up().await {
                sleep(RETRY).await;
            }
            // Wakes the clients' tasks that wanted to write meanwhile.
            chat.registry.all().iter().for_each(|session| session.outbox.nudge());
        }
        sleep(CHECK_INTERVAL).await;
    }
}

impl Chat {
    /// Reads revocations and heads, ends the sessions that have logged out, and allows writing again. `false` when a
    /// service did not answer, or the process stood still again meanwhile.
    async fn catch_up(&self) -> bool {
        let begin = now();
        let (revocations, heads) = tokio::join!(self.revocations.catch_up(), self.follower.catch_up());
        if revocations.is_err() || !heads {
            return false;
        }
        for socket in self.sign_ins.all() {
            // Subscribers learn of these revocations as well, but perhaps after the other sessions are written to.
            if socket.client.identity().is_some_and(|identity| self.revocations.is_revoked(identity.session_id)) {
                self.end_session(&socket, "logged_out");
            }
        }
        self.revocations.pauses().resume(begin)
    }
}

//! The pause detector. After a pause of the process (SIGSTOP, a frozen machine), the gateway's list of revocations is
//! out of date. The gateway writes nothing to clients until it has read the list again.

use std::sync::Arc;
use std::time::Duration;

use confab_common::standstill::{CHECK_INTERVAL, now};
use tokio::time::sleep;

use super::context::Chat;
use crate::metrics::METRICS;

/// Pause before the next attempt to catch up.
const RETRY: Duration = Duration::from_millis(100);

/// Detects pauses with the clock, and catches up after each.
pub async fn watch(chat: Arc<Chat>) {
    loop {
        if !chat.revocations.pauses().observe() {
            tracing::warn!("this process was paused; it resumes writing after it has read revocations and heads");
            METRICS.pauses.increment(1);
            while !chat.catch_up().await {
                sleep(RETRY).await;
            }
            // Wakes the clients' tasks that could not write meanwhile.
            chat.registry.all().iter().for_each(|session| session.outbox.nudge());
        }
        sleep(CHECK_INTERVAL).await;
    }
}

impl Chat {
    /// Reads revocations and heads, disconnects the sockets of revoked tokens, and resumes writing. `false` when a
    /// service did not answer, or the process was paused again meanwhile.
    async fn catch_up(&self) -> bool {
        let begin = now();
        let (revocations, heads) = tokio::join!(self.revocations.catch_up(), self.follower.catch_up());
        if revocations.is_err() || !heads {
            return false;
        }
        for socket in self.sign_ins.all() {
            // The task for revocations disconnects these sockets, too, but perhaps only after writing has resumed.
            self.end_if_revoked(&socket);
        }
        self.revocations.pauses().resume(begin)
    }
}

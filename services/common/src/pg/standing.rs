//! The state of a pool's server: which connections may be used, and what `/readyz` reports about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError, WeakPool};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::errors::{READ_ONLY, reason};
use crate::readiness::Readiness;

/// How often an unusable server is retried, so that `/readyz` is correct soon after its recovery.
const RETRY_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Standing {
    store: String,
    readiness: Readiness,
    // Locked for an instant, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections opened before this time lead to a server that rejected writes.
    unwelcome_before: Option<Instant>,
    /// Whether the last attempt to connect failed, or the server rejected writes.
    is_of_no_use: bool,
    /// Whether a task is retrying the server.
    is_tried: bool,
}

impl Standing {
    pub(super) fn new(schema: &str, readiness: Readiness) -> Self {
        Self { store: format!("{schema} store"), readiness, state: Mutex::default() }
    }

    /// Sets or clears the fault that `/readyz` reports for the server.
    pub(super) fn note(&self, wrong: Option<String>) {
        self.readiness.note(&self.store, wrong);
    }

    /// Checks out a connection, but not one to a server that last rejected writes.
    pub(super) async fn check_out(self: &Arc<Self>, connections: &Pool) -> Result<Object, PoolError> {
        loop {
            match connections.get().await {
                Ok(object)
                    if self
                        .state
                        .lock()
                        .unwelcome_before
                        .is_some_and(|since| Object::metrics(&object).created < since) =>
                {
                    drop(Object::take(object));
                }
                Ok(object) => {
                    self.is_good_again();
                    return Ok(object);
                }
                Err(error) => {
                    // An exhausted pool does not mean that the server is unusable.
                    if let PoolError::Backend(error) = &error {
                        self.is_of_no_use(connections, reason(error));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Abandons a server that rejects writes: its open connections are not used again.
    pub(super) fn leave_server(self: &Arc<Self>, connections: &Pool) {
        self.state.lock().unwelcome_before = Some(Instant::now());
        connections.retain(|_, _| false);
        self.is_of_no_use(connections, READ_ONLY.into());
    }

    fn is_of_no_use(self: &Arc<Self>, connections: &Pool, reason: String) {
        let mut state = self.state.lock();
        state.is_of_no_use = true;
        self.note(Some(reason));
        if !std::mem::replace(&mut state.is_tried, true) {
            tokio::spawn(try_again(connections.weak(), self.clone()));
        }
    }

    fn is_good_again(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_of_no_use) {
            self.note(None);
        }
    }
}

/// Connects, to this server or its replacement, until an attempt succeeds.
async fn try_again(connections: WeakPool, standing: Arc<Standing>) {
    loop {
        sleep(RETRY_EVERY).await;
        let Some(connections) = connections.upgrade() else { return };
        let _ = standing.check_out(&connections).await;
        let mut state = standing.state.lock();
        if !state.is_of_no_use {
            state.is_tried = false;
            return;
        }
    }
}

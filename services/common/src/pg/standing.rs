//! How a pool stands with its server: which connections to it are welcome, and what `/readyz` says of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError, WeakPool};
use tokio::time::sleep;

use super::errors::{READ_ONLY, reason};
use crate::process::Readiness;

/// How often a server that is of no use is tried, so that `/readyz` says so no longer than that is true.
const TRY: Duration = Duration::from_secs(1);

pub(super) struct Standing {
    store: String,
    readiness: Readiness,
    // A std lock: held for an instant, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Older connections lead to a server that took no writes.
    unwelcome_before: Option<Instant>,
    /// The last attempt to connect has failed, or a server took no writes.
    is_of_no_use: bool,
    /// A task tries such a server.
    is_tried: bool,
}

impl Standing {
    pub(super) fn new(schema: &str, readiness: Readiness) -> Self {
        Self { store: format!("{schema} store"), readiness, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the server, for `/readyz`.
    pub(super) fn note(&self, wrong: Option<String>) {
        self.readiness.note(&self.store, wrong);
    }

    /// A connection, but none to a server that took no writes when asked last.
    pub(super) async fn lend(self: &Arc<Self>, connections: &Pool) -> Result<Object, PoolError> {
        loop {
            match connections.get().await {
                Ok(object) if self.state().unwelcome_before.is_some_and(|since| Object::metrics(&object).created < since) => {
                    drop(Object::take(object));
                }
                Ok(object) => {
                    self.is_good_again();
                    return Ok(object);
                }
                Err(error) => {
                    // A pool that is used up says nothing about the server.
                    if let PoolError::Backend(error) = &error {
                        self.is_of_no_use(connections, reason(error));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The server takes no writes: no connection to it that there is by now is lent again.
    pub(super) fn leave_server(self: &Arc<Self>, connections: &Pool) {
        self.state().unwelcome_before = Some(Instant::now());
        connections.retain(|_, _| false);
        self.is_of_no_use(connections, READ_ONLY.into());
    }

    fn is_of_no_use(self: &Arc<Self>, connections: &Pool, reason: String) {
        let mut state = self.state();
        state.is_of_no_use = true;
        self.note(Some(reason));
        if !std::mem::replace(&mut state.is_tried, true) {
            tokio::spawn(try_again(connections.weak(), self.clone()));
        }
    }

    fn is_good_again(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_of_no_use) {
            self.note(None);
        }
    }
}

/// Connects until that succeeds, here or elsewhere.
async fn try_again(connections: WeakPool, standing: Arc<Standing>) {
    loop {
        sleep(TRY).await;
        let Some(connections) = connections.upgrade() else { return };
        let _ = standing.lend(&connections).await;
        let mut state = standing.state();
        if !state.is_of_no_use {
            state.is_tried = false;
            return;
        }
    }
}

//! Whether a process is ready, for `/readyz` and for load balancers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The readiness of a process: warm and not draining. Each part of the process that must warm up holds a [`Condition`].
#[derive(Clone, Debug)]
pub struct Readiness {
    is_ready: Arc<watch::Sender<bool>>,
    // Locked for an instant, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    draining: bool,
    conditions: BTreeMap<&'static str, bool>,
    /// Known faults, by part.
    notes: BTreeMap<String, String>,
}

impl State {
    fn is_ready(&self) -> bool {
        self.started && !self.draining && self.conditions.values().all(|met| *met)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self { is_ready: Arc::new(watch::channel(false).0), state: Arc::default() }
    }
}

impl Readiness {
    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.change(|state| _ = state.conditions.insert(name, false));
        Condition { readiness: self.clone(), name }
    }

    /// Marks the start-up as complete: no further conditions are added.
    pub fn started(&self) {
        self.change(|state| state.started = true);
    }

    pub fn has_started(&self) -> bool {
        self.state.lock().started
    }

    /// Marks the process as draining: it never becomes ready again.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    /// Returns a receiver of whether [`Readiness::missing`] is `None`.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_ready.subscribe()
    }

    /// Returns the reason why the process is not ready, or `None` if it is ready.
    pub fn missing(&self) -> Option<String> {
        let state = self.state.lock();
        let unmet = state.conditions.iter().filter(|(_, met)| !**met).map(|(name, _)| *name).collect::<Vec<_>>();
        if state.is_ready() {
            None
        } else if state.draining {
            Some("leaving".into())
        } else if unmet.is_empty() {
            Some("starting".into())
        } else {
            Some(format!("waiting for {}", unmet.join(", ")))
        }
    }

    /// Sets or clears the fault of a part. A fault alone does not change whether the process is ready.
    pub fn note(&self, part: &str, wrong: Option<String>) {
        self.change(|state| match wrong {
            Some(wrong) => _ = state.notes.insert(part.to_owned(), wrong),
            None => _ = state.notes.remove(part),
        });
    }

    /// Returns the faults of all parts, each after `; `.
    pub fn notes(&self) -> String {
        let state = self.state.lock();
        state.notes.iter().map(|(part, wrong)| format!("; {part}: {wrong}")).collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.is_ready.send_replace(state.is_ready());
    }
}

/// A condition that must hold for the process to be ready.
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Condition {
    pub fn set(&self, met: bool) {
        self.readiness.change(|state| _ = state.conditions.insert(self.name, met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_started_warm_and_not_draining() {
        let readiness = Readiness::default();
        let warm = readiness.condition("keys");
        assert_eq!(readiness.missing().unwrap(), "waiting for keys");
        warm.set(true);
        assert_eq!(readiness.missing().unwrap(), "starting");
        readiness.started();
        assert_eq!(readiness.missing(), None);
        assert!(*readiness.watch().borrow());
        warm.set(false);
        assert!(!*readiness.watch().borrow());
        readiness.note("room store", Some("Postgres is read-only".into()));
        assert_eq!(
            (readiness.missing().unwrap().as_str(), &*readiness.notes()),
            ("waiting for keys", "; room store: Postgres is read-only")
        );
        warm.set(true);
        assert_eq!(readiness.missing(), None, "a fault of a dependency does not make the process unready");
        readiness.note("room store", None);
        assert_eq!(readiness.notes(), "");
        readiness.drain();
        assert_eq!(readiness.missing().unwrap(), "leaving");
    }
}

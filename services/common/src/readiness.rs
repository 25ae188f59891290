//! Whether a process is ready, for `/readyz` and for balancers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Whether the process is warm and not draining. Each part that must be warm takes a [`Condition`].
#[derive(Clone, Debug)]
pub struct Readiness {
    is_ready: Arc<watch::Sender<bool>>,
    // Held for a look or a change, never across an await.
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

    /// Start-up is complete: no further conditions are added.
    pub fn started(&self) {
        self.change(|state| state.started = true);
    }

    /// Whether start-up is complete.
    pub fn has_started(&self) -> bool {
        self.state.lock().started
    }

    /// The process is draining: never ready again.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
    }

    /// Follows whether [`Readiness::missing`] is `None`.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_ready.subscribe()
    }

    /// Why the process is not ready; `None` when it is.
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

    /// Sets or clears a part's fault, which alone does not change whether the process is ready.
    pub fn note(&self, part: &str, wrong: Option<String>) {
        self.change(|state| match wrong {
            Some(wrong) => _ = state.notes.insert(part.to_owned(), wrong),
            None => _ = state.notes.remove(part),
        });
    }

    /// The faults by part, each after `; `.
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

/// A condition for the process to be ready.
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Condition {
    /// Sets whether the condition holds.
    pub fn set(&self, met: bool) {
        self.readiness.change(|state| _ = state.conditions.insert(self.name, met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_started_warm_and_not_leaving() {
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
        assert_eq!(readiness.missing(), None, "what is wrong elsewhere sends no clients away");
        readiness.note("room store", None);
        assert_eq!(readiness.notes(), "");
        readiness.drain();
        assert_eq!(readiness.missing().unwrap(), "leaving");
    }
}

//! The sessions of this gateway: found by their secret id, by the token they connected with, counted by user.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::session::Session;
use crate::tokens::Identity;

/// All sessions.
#[derive(Default)]
pub struct Registry {
    // A std lock: held for a look-up or a change, never across an await.
    sessions: Mutex<Sessions>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Sessions {
    by_sid: HashMap<Box<str>, Arc<Session>>,
    by_token: HashMap<String, Vec<Arc<Session>>>,
    per_user: HashMap<Uuid, usize>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other session of this process has.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a session.
    pub fn insert(&self, session: Arc<Session>) {
        self.lock().by_sid.insert(session.sid().into(), session);
        metrics::gauge!("confab_sessions").increment(1);
    }

    /// The session with that secret id.
    pub fn get(&self, sid: &str) -> Option<Arc<Session>> {
        self.lock().by_sid.get(sid).cloned()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.lock().by_sid.len()
    }

    /// All sessions there are now.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.lock().by_sid.values().cloned().collect()
    }

    /// Registers a session under its token and user; `false` when the user has `max` sockets already (0: no limit).
    pub fn sign_in(&self, session: &Arc<Session>, identity: &Identity, max: usize) -> bool {
        let mut sessions = self.lock();
        let count = sessions.per_user.entry(identity.user_id).or_default();
        if max != 0 && *count >= max {
            return false;
        }
        *count += 1;
        sessions.by_token.entry(identity.session_id.clone()).or_default().push(session.clone());
        true
    }

    /// The sessions that connected with that token.
    pub fn of_token(&self, token: &str) -> Vec<Arc<Session>> {
        self.lock().by_token.get(token).cloned().unwrap_or_default()
    }

    /// Forgets a session, and its sign-in if it had one. Doing it again is harmless.
    pub fn remove(&self, session: &Session, identity: Option<&Identity>) {
        let mut sessions = self.lock();
        if sessions.by_sid.remove(session.sid()).is_some() {
            metrics::gauge!("confab_sessions").decrement(1);
        }
        let Some(identity) = identity else { return };
        let Some(of_token) = sessions.by_token.get_mut(&identity.session_id) else { return };
        let Some(index) = of_token.iter().position(|other| std::ptr::eq(&raw const **other, session)) else { return };
        of_token.swap_remove(index);
        if of_token.is_empty() {
            sessions.by_token.remove(&identity.session_id);
        }
        if let Some(count) = sessions.per_user.get_mut(&identity.user_id) {
            *count -= 1;
            if *count == 0 {
                sessions.per_user.remove(&identity.user_id);
            }
        }
    }
}

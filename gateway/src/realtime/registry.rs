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
    by_token: HashMap<Uuid, Vec<Arc<Session>>>,
    per_user: HashMap<Uuid, usize>,
}

/// Why a session is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSignedIn {
    /// Its user has too many.
    TooMany,
    /// Its token has been revoked.
    Revoked,
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

    /// Registers a session under its token and user (0: no limit to the sockets of one), and only then asks whether the token has
    /// been revoked: a logout in between is seen here or by whoever ends the token's sessions.
    ///
    /// # Errors
    /// When the user has `max` sockets already, and when the token has been revoked; in the latter case the session is registered.
    pub fn sign_in(
        &self,
        session: &Arc<Session>,
        identity: &Identity,
        max: usize,
        is_revoked: impl FnOnce() -> bool,
    ) -> Result<(), NotSignedIn> {
        {
            let mut sessions = self.lock();
            let count = sessions.per_user.entry(identity.user_id).or_default();
            if max != 0 && *count >= max {
                return Err(NotSignedIn::TooMany);
            }
            *count += 1;
            sessions.by_token.entry(identity.session_id).or_default().push(session.clone());
        }
        if is_revoked() { Err(NotSignedIn::Revoked) } else { Ok(()) }
    }

    /// The sessions that connected with that token.
    pub fn of_token(&self, session_id: Uuid) -> Vec<Arc<Session>> {
        self.lock().by_token.get(&session_id).cloned().unwrap_or_default()
    }

    /// Forgets a session, and its sign-in if it had one. Doing it again is harmless.
    pub fn remove(&self, session: &Session, identity: Option<&Identity>) {
        let mut sessions = self.lock();
        sessions.by_sid.remove(session.sid());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::World;
    use crate::testing::{bus, identity};

    #[tokio::test]
    async fn who_signs_in_can_be_found_before_it_is_asked_whether_it_has_logged_out() {
        let (world, identity) = (World::new(bus()).await, identity());
        let registry = &world.edge.registry;
        let [session, other] = [(); 2].map(|()| world.client().session);
        let found = || registry.of_token(identity.session_id).len();
        let is_revoked = || {
            assert_eq!(found(), 1);
            true
        };
        assert_eq!(registry.sign_in(&session, &identity, 1, is_revoked), Err(NotSignedIn::Revoked));
        assert_eq!(registry.sign_in(&other, &identity, 1, || panic!("not asked")), Err(NotSignedIn::TooMany));
        registry.remove(&session, Some(&identity));
        assert_eq!(found(), 0);
        assert_eq!(registry.sign_in(&other, &identity, 1, || false), Ok(()));
    }
}

//! The sessions of this gateway: found by their secret id, by their token, by their user and, before they have
//! connected, by their client's address.

mod pending;

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use self::pending::Pending;
use super::session::Session;
use crate::address::ClientAddress;
use crate::memory::Holder;
use crate::rooms::hub::Listener;
use crate::tables::{shrink, shrink_set};
use crate::tokens::Identity;

/// All sessions.
#[derive(Default)]
pub struct Registry {
    // Held for a look-up or a change, never across an await.
    sessions: Mutex<Sessions>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Sessions {
    by_sid: HashSet<BySid>,
    by_token: HashMap<Uuid, Vec<Arc<Session>>>,
    by_user: HashMap<Uuid, Vec<Arc<Session>>>,
    pending: Pending<Session>,
}

/// A session, hashed by its secret id.
struct BySid(Arc<Session>);

impl Borrow<str> for BySid {
    fn borrow(&self) -> &str {
        self.0.sid()
    }
}

impl Hash for BySid {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.sid().hash(hasher);
    }
}

impl PartialEq for BySid {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid() == other.0.sid()
    }
}

impl Eq for BySid {}

/// Why a session may not sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSignedIn {
    /// Its user has too many sockets.
    TooMany,
    /// Its token has been revoked.
    Revoked,
}

impl Registry {
    /// A number that is unique among the sessions of this process.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a session that has not connected. When there are now more than `max` of them (0: no limit), returns the one
    /// that the caller must close: the oldest of the address that has most.
    #[must_use]
    pub fn insert(&self, session: &Arc<Session>, address: ClientAddress, max: usize) -> Option<Arc<Session>> {
        let mut sessions = self.sessions.lock();
        sessions.by_sid.insert(BySid(session.clone()));
        sessions.pending.insert(session.id(), address, session.clone());
        session.outbox.count_in(session.edge.memory.share(Holder::Address(address)));
        let excess = max != 0 && sessions.pending.len() > max;
        let oldest = excess.then(|| sessions.pending.oldest_of_most()).flatten();
        // Under the same lock: of two concurrent inserts over the limit, each closes a different session.
        oldest.inspect(|oldest| sessions.pending.remove(oldest.id()))
    }

    /// The session with this secret id.
    pub fn get(&self, sid: &str) -> Option<Arc<Session>> {
        self.sessions.lock().by_sid.get(sid).map(|found| found.0.clone())
    }

    /// How many sessions have not connected.
    pub fn pending(&self) -> usize {
        self.sessions.lock().pending.len()
    }

    /// The sessions that count towards a holder: a user's, or an address' that have not connected.
    pub fn of_holder(&self, holder: Holder) -> Vec<Arc<Session>> {
        let sessions = self.sessions.lock();
        match holder {
            Holder::User(id) => sessions.by_user.get(&id).cloned().unwrap_or_default(),
            Holder::Address(address) => sessions.pending.of(address),
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().by_sid.len()
    }

    /// All sessions there are now.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().by_sid.iter().map(|found| found.0.clone()).collect()
    }

    /// Registers a session under its token and its user (0: no limit on a user's sockets), and only then checks whether
    /// the token has been revoked: a logout in between is seen either here or by the task that ends the token's
    /// sessions.
    ///
    /// # Errors
    /// When the user has `max` sockets already, or when the token has been revoked; in the latter case the session is
    /// registered.
    pub fn sign_in(
        &self,
        session: &Arc<Session>,
        identity: &Identity,
        max: usize,
        is_revoked: impl FnOnce() -> bool,
    ) -> Result<(), NotSignedIn> {
        {
            let mut sessions = self.sessions.lock();
            let user = sessions.by_user.entry(identity.user_id).or_default();
            if max != 0 && user.len() >= max {
                return Err(NotSignedIn::TooMany);
            }
            if user.is_empty() {
                // Most users have one session.
                user.reserve_exact(1);
            }
            user.push(session.clone());
            session.outbox.count_in(session.edge.memory.share(Holder::User(identity.user_id)));
            sessions.pending.remove(session.id());
            sessions.by_token.entry(identity.session_id).or_default().push(session.clone());
        }
        if is_revoked() { Err(NotSignedIn::Revoked) } else { Ok(()) }
    }

    /// The sessions that connected with this token.
    pub fn of_token(&self, session_id: Uuid) -> Vec<Arc<Session>> {
        self.sessions.lock().by_token.get(&session_id).cloned().unwrap_or_default()
    }

    /// Forgets a session and, if it signed in, its sign-in. Idempotent.
    pub fn remove(&self, session: &Session, identity: Option<&Identity>) {
        let mut sessions = self.sessions.lock();
        sessions.by_sid.remove(session.sid());
        shrink_set(&mut sessions.by_sid);
        sessions.pending.remove(session.id());
        let Some(identity) = identity else { return };
        if let Some(of_token) = sessions.by_token.get_mut(&identity.session_id)
            && take(of_token, session)
            && of_token.is_empty()
        {
            sessions.by_token.remove(&identity.session_id);
            shrink(&mut sessions.by_token);
        }
        if let Some(user) = sessions.by_user.get_mut(&identity.user_id)
            && take(user, session)
            && user.is_empty()
        {
            sessions.by_user.remove(&identity.user_id);
            shrink(&mut sessions.by_user);
        }
    }
}

/// Removes a session from a list; `false` when it is not there.
fn take(sessions: &mut Vec<Arc<Session>>, session: &Session) -> bool {
    let index = sessions.iter().position(|other| std::ptr::eq(&raw const **other, session));
    index.map(|index| sessions.swap_remove(index)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::World;
    use crate::testing::{bus, identity};

    #[tokio::test]
    async fn a_session_is_registered_before_its_revocation_is_checked() {
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

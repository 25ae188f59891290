//! The sessions of this server: found by their secret id and, before their client is known, counted by its address.

mod pending;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use confab_common::tables::shrink_set;
use parking_lot::Mutex;
use uuid::Uuid;

use self::pending::Pending;
use crate::budget::{Budget, Holder};
use crate::net::ClientAddress;
use crate::session::Session;

/// All sessions.
pub struct Registry<C> {
    // Held for a look-up or a change, never across an await.
    sessions: Mutex<Sessions<C>>,
    next_id: AtomicU64,
    budget: Arc<Budget>,
}

struct Sessions<C> {
    by_sid: HashSet<BySid<C>>,
    pending: Pending<Session<C>>,
}

/// A session, hashed by its secret id.
struct BySid<C>(Arc<Session<C>>);

impl<C> Borrow<str> for BySid<C> {
    fn borrow(&self) -> &str {
        self.0.sid()
    }
}

impl<C> Hash for BySid<C> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.sid().hash(hasher);
    }
}

impl<C> PartialEq for BySid<C> {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid() == other.0.sid()
    }
}

impl<C> Eq for BySid<C> {}

impl<C> Default for Registry<C> {
    /// No sessions, which together may hold 256 MiB.
    fn default() -> Self {
        Self::new(Arc::new(Budget::new(256 << 20, Arc::default())))
    }
}

impl<C> Registry<C> {
    /// No sessions; their bytes are counted in `budget`.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            sessions: Mutex::new(Sessions { by_sid: HashSet::new(), pending: Pending::default() }),
            next_id: AtomicU64::new(0),
            budget,
        }
    }

    /// The bytes held for all clients.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// A number that is unique among the sessions of this process.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a session whose client is not known. When there are now more than `max` of them (0: no limit), returns the one
    /// that the caller must close: the oldest of the address that has most.
    #[must_use]
    pub(crate) fn insert(
        &self,
        session: &Arc<Session<C>>,
        address: ClientAddress,
        max: usize,
    ) -> Option<Arc<Session<C>>> {
        let mut sessions = self.sessions.lock();
        sessions.by_sid.insert(BySid(session.clone()));
        sessions.pending.insert(session.id(), address, session.clone());
        session.outbox.count_in(self.budget.share(Holder::Address(address)));
        let excess = max != 0 && sessions.pending.len() > max;
        let oldest = excess.then(|| sessions.pending.oldest_of_most()).flatten();
        // Under the same lock: of two concurrent inserts over the limit, each closes a different session.
        oldest.inspect(|oldest| sessions.pending.remove(oldest.id()))
    }

    /// The session with this secret id.
    pub fn get(&self, sid: &str) -> Option<Arc<Session<C>>> {
        self.sessions.lock().by_sid.get(sid).map(|found| found.0.clone())
    }

    /// How many sessions have a client that is not known.
    pub fn pending(&self) -> usize {
        self.sessions.lock().pending.len()
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.sessions.lock().by_sid.len()
    }

    /// All sessions there are now.
    pub fn all(&self) -> Vec<Arc<Session<C>>> {
        self.sessions.lock().by_sid.iter().map(|found| found.0.clone()).collect()
    }

    /// Makes the client known: its bytes count for this owner from now on, and the bounds on clients that are not known no
    /// longer apply.
    pub fn identify(&self, session: &Session<C>, owner: Uuid) {
        self.sessions.lock().pending.remove(session.id());
        session.outbox.count_in(self.budget.share(Holder::Owner(owner)));
        session.set_known();
    }

    /// Forgets a session. Idempotent.
    pub(crate) fn remove(&self, session: &Session<C>) {
        let mut sessions = self.sessions.lock();
        sessions.by_sid.remove(session.sid());
        shrink_set(&mut sessions.by_sid);
        sessions.pending.remove(session.id());
    }
}

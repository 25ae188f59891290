//! The sessions of a server by their secret id. Sessions without an identified client are also counted by address.

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

/// The sessions of a server. The application shares it with the server to identify clients.
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
    /// Creates an empty registry whose sessions together may hold 256 MiB.
    fn default() -> Self {
        Self::new(Arc::new(Budget::new(256 << 20, Arc::default())))
    }
}

impl<C> Registry<C> {
    /// Creates an empty registry; `budget` counts and limits the bytes held for its sessions.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            sessions: Mutex::new(Sessions { by_sid: HashSet::new(), pending: Pending::default() }),
            next_id: AtomicU64::new(0),
            budget,
        }
    }

    /// The memory limit of all clients.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a session without an identified client. If there are now more than `max` such sessions (0: no limit),
    /// returns the one that the caller must close: the oldest of the address that has the most.
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
        // Under the same lock, so that two concurrent inserts over the limit close two different sessions.
        oldest.inspect(|oldest| sessions.pending.remove(oldest.id()))
    }

    /// The session with this secret id; `None` when it has ended or belongs to another node.
    pub fn get(&self, sid: &str) -> Option<Arc<Session<C>>> {
        self.sessions.lock().by_sid.get(sid).map(|found| found.0.clone())
    }

    /// The number of sessions without an identified client.
    pub fn pending(&self) -> usize {
        self.sessions.lock().pending.len()
    }

    /// The number of open sessions.
    pub fn count(&self) -> usize {
        self.sessions.lock().by_sid.len()
    }

    /// All open sessions at this moment.
    pub fn all(&self) -> Vec<Arc<Session<C>>> {
        self.sessions.lock().by_sid.iter().map(|found| found.0.clone()).collect()
    }

    /// Identifies the client of a session. From now on its bytes count for `owner`, and the limits for unidentified
    /// clients (16 KiB, `connect_timeout`, `max_pending_sessions`) no longer apply.
    pub fn identify(&self, session: &Session<C>, owner: Uuid) {
        self.sessions.lock().pending.remove(session.id());
        session.outbox.count_in(self.budget.share(Holder::Owner(owner)));
        session.set_known();
    }

    /// Removes a session. Idempotent.
    pub(crate) fn remove(&self, session: &Session<C>) {
        let mut sessions = self.sessions.lock();
        sessions.by_sid.remove(session.sid());
        shrink_set(&mut sessions.by_sid);
        sessions.pending.remove(session.id());
    }
}

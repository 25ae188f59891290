//! The share of one holder: an owner or an address.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::Budget;
use crate::net::ClientAddress;

/// A connection that another task can end.
pub trait Cut: Send + Sync {
    /// Ends the connection immediately, so that its bytes are freed.
    fn cut(&self);
}

pub(super) struct Entry {
    pub bytes: usize,
    pub cut: Weak<dyn Cut>,
}

/// The holder of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The owner of sessions, as the application identified it.
    Owner(Uuid),
    /// An address, for clients without a known owner.
    Address(ClientAddress),
}

/// The bytes held for one owner or one address.
pub struct Share {
    bytes: AtomicUsize,
    // Held for a look-up or a change, never across an await.
    requests: Mutex<BTreeMap<u64, Entry>>,
    // Held for a look-up or a change, never across an await.
    extensions: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    listed: Option<(Holder, Weak<Budget>)>,
}

impl Default for Share {
    fn default() -> Self {
        Self::listed(None)
    }
}

impl Share {
    fn listed(listed: Option<(Holder, Weak<Budget>)>) -> Self {
        Self { bytes: AtomicUsize::new(0), requests: Mutex::default(), extensions: Mutex::default(), listed }
    }

    pub(super) fn of(holder: Holder, budget: &Arc<Budget>) -> Self {
        Self::listed(Some((holder, Arc::downgrade(budget))))
    }

    /// The number of bytes in this share.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The holder; `None` for a share that [`Share::default`] created.
    pub fn holder(&self) -> Option<Holder> {
        self.listed.as_ref().map(|(holder, _)| *holder)
    }

    /// Adds bytes; `true` when the share had 0 bytes.
    pub(super) fn add(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0
    }

    /// Subtracts bytes; `true` when the share has 0 bytes now.
    pub(super) fn subtract(&self, bytes: usize) -> bool {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.requests.lock()
    }

    /// The bytes of each request in this share, with its connection.
    pub fn held(&self) -> Vec<(usize, Weak<dyn Cut>)> {
        self.requests().values().map(|entry| (entry.bytes, entry.cut.clone())).collect()
    }

    /// The application's data for the holder: one value of each type, which the first call creates.
    pub fn extension<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut extensions = self.extensions.lock();
        if let Some(kept) = extensions.iter().find_map(|kept| kept.clone().downcast().ok()) {
            return kept;
        }
        let made = Arc::<T>::default();
        extensions.push(made.clone());
        made
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((holder, budget)) = &self.listed
            && let Some(budget) = budget.upgrade()
        {
            budget.forget(*holder);
        }
    }
}

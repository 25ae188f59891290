//! The share of one user or address.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::Memory;
use crate::address::ClientAddress;

/// Most sends and uploads of one user in progress at once.
const MAX_SENDS: usize = 128;
/// Most clients of one user that are recovered at once: a quarter of all.
const MAX_RESTORES: usize = 16;
/// Most pages that are read for one holder at once: the largest take milliseconds of a processor.
const MAX_PAGES: usize = 2;

/// A connection that can be ended from elsewhere.
pub trait Cut: Send + Sync {
    /// Ends it at once: what is held for it is freed soon.
    fn cut(&self);
}

pub(super) struct Entry {
    pub bytes: usize,
    pub cut: Weak<dyn Cut>,
}

/// The holder of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A user.
    User(Uuid),
    /// An address, for its clients whose user is not known.
    Address(ClientAddress),
}

/// What is held for one user, or for an address.
pub struct Share {
    bytes: AtomicUsize,
    sends: Semaphore,
    restores: Arc<Semaphore>,
    pages: Semaphore,
    /// What is held for requests.
    // Held for a look-up or a change, never across an await.
    requests: Mutex<BTreeMap<u64, Entry>>,
    listed: Option<(Holder, Weak<Memory>)>,
}

impl Default for Share {
    fn default() -> Self {
        Self::listed(None)
    }
}

impl Share {
    fn listed(listed: Option<(Holder, Weak<Memory>)>) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            sends: Semaphore::new(MAX_SENDS),
            restores: Arc::new(Semaphore::new(MAX_RESTORES)),
            pages: Semaphore::new(MAX_PAGES),
            requests: Mutex::default(),
            listed,
        }
    }

    pub(super) fn of(holder: Holder, memory: &Arc<Memory>) -> Self {
        Self::listed(Some((holder, Arc::downgrade(memory))))
    }

    /// Bytes held in this share.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The holder; `None` before the share belongs to one.
    pub fn holder(&self) -> Option<Holder> {
        self.listed.as_ref().map(|(holder, _)| *holder)
    }

    /// Adds bytes; `true` when there were none.
    pub(super) fn add(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0
    }

    /// Subtracts bytes; `true` when none are left.
    pub(super) fn subtract(&self, bytes: usize) -> bool {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.requests.lock()
    }

    /// What is held for requests: the bytes and their connection.
    pub fn held(&self) -> Vec<(usize, Weak<dyn Cut>)> {
        self.requests().values().map(|entry| (entry.bytes, entry.cut.clone())).collect()
    }

    /// Permits to recover clients of this user.
    pub fn restores(&self) -> Arc<Semaphore> {
        self.restores.clone()
    }

    /// Waits for a permit to send; one user's sends are bounded, so that other users' sends do not queue behind them.
    pub async fn begin_send(self: Arc<Self>) -> Sends {
        let count = usize::from(self.sends.acquire().await.map(SemaphorePermit::forget).is_ok());
        Sends { share: self, count }
    }

    pub(super) async fn begin_page(self: Arc<Self>) -> OwnTurn {
        let count = usize::from(self.pages.acquire().await.map(SemaphorePermit::forget).is_ok());
        OwnTurn { share: self, count }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((holder, memory)) = &self.listed
            && let Some(memory) = memory.upgrade()
        {
            memory.forget(*holder);
        }
    }
}

/// Permits for a user's sends in progress.
pub struct Sends {
    share: Arc<Share>,
    count: usize,
}

impl Sends {
    /// Takes up to `wanted` more permits without waiting; returns how many.
    pub fn begin_more(&mut self, wanted: usize) -> usize {
        let more = wanted.min(self.share.sends.available_permits());
        let begun = self.share.sends.try_acquire_many(more as u32).map(SemaphorePermit::forget).map_or(0, |()| more);
        self.count += begun;
        begun
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        self.share.sends.add_permits(self.count);
    }
}

/// The right to read a page.
pub struct PageTurn {
    pub(super) _own: OwnTurn,
    pub(super) _common: Option<OwnedSemaphorePermit>,
}

/// The part of it that the holder's share gives.
pub(super) struct OwnTurn {
    share: Arc<Share>,
    count: usize,
}

impl Drop for OwnTurn {
    fn drop(&mut self) {
        self.share.pages.add_permits(self.count);
    }
}

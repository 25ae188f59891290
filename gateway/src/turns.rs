//! Bounds the concurrent operations of one user, or of one address without a known user. Further operations wait here,
//! so that they do not delay those of other users in common queues.

use std::sync::Arc;

use confab_socketio::budget::{Budget, Share};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of sends and uploads of one user in flight.
const MAX_SENDS: usize = 128;
/// Maximum number of concurrent recoveries of one user: a quarter of all recoveries.
const MAX_RESTORES: usize = 16;
/// Maximum number of pages that are read for one holder at the same time. The largest pages take milliseconds of CPU
/// time.
const MAX_PAGES_OF_HOLDER: usize = 2;
/// Maximum number of pages of lists that are read at the same time.
const MAX_PAGES: usize = 16;

/// The permits of one holder, kept in its share.
struct Permits {
    sends: Arc<Semaphore>,
    restores: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

impl Default for Permits {
    fn default() -> Self {
        let [sends, restores, pages] =
            [MAX_SENDS, MAX_RESTORES, MAX_PAGES_OF_HOLDER].map(|most| Arc::new(Semaphore::new(most)));
        Self { sends, restores, pages }
    }
}

/// Permits for a user's sends in flight, released when dropped.
pub struct SendPermits {
    sends: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl SendPermits {
    /// Waits for a permit to send.
    pub async fn acquire(share: &Share) -> Self {
        let sends = share.extension::<Permits>().sends.clone();
        let taken = sends.clone().acquire_owned().await.ok();
        Self { sends, taken }
    }

    /// Acquires up to `wanted` more permits without waiting; returns their number.
    pub fn try_more(&mut self, wanted: usize) -> usize {
        let more = wanted.min(self.sends.available_permits());
        let Ok(others) = self.sends.clone().try_acquire_many_owned(more as u32) else { return 0 };
        match &mut self.taken {
            Some(taken) => taken.merge(others),
            None => self.taken = Some(others),
        }
        more
    }
}

/// Waits for a permit to recover a client of this user.
pub async fn restore_permit(share: &Share) -> Option<OwnedSemaphorePermit> {
    let restores = share.extension::<Permits>().restores.clone();
    restores.acquire_owned().await.ok()
}

/// The right to read a page, released when dropped.
pub struct PagePermit {
    /// Keeps the holder's permits: without it, they would be counted anew for each request of a user without a socket.
    _share: Arc<Share>,
    _of_holder: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Bounds the pages of lists that are read at the same time, because a page is in memory completely before it is sent.
pub struct Pages {
    budget: Arc<Budget>,
    all: Arc<Semaphore>,
}

impl Pages {
    /// Creates the bounds; `budget` is the memory limit of all clients.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, all: Arc::new(Semaphore::new(MAX_PAGES)) }
    }

    /// Waits until a page may be read for the holder of this share.
    pub async fn acquire(&self, share: Arc<Share>) -> PagePermit {
        // The holder's own permit first, so that its other requests do not wait in the common queue.
        let of_holder = share.extension::<Permits>().pages.clone().acquire_owned().await.ok();
        self.budget.space_for(&share, "page").await;
        PagePermit { _share: share, _of_holder: of_holder, _of_all: self.all.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests;

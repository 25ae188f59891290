//! Bounds the concurrent operations of one user, or of one address without a known user. Further operations wait here,
//! so that they do not delay those of other users in common queues.

use std::sync::Arc;

use confab_socketio::budget::{Budget, Share};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

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
    count: usize,
}

impl SendPermits {
    /// Waits for a permit to send.
    pub async fn acquire(share: &Share) -> Self {
        let sends = share.extension::<Permits>().sends.clone();
        let count = usize::from(sends.acquire().await.map(SemaphorePermit::forget).is_ok());
        Self { sends, count }
    }

    /// Acquires up to `wanted` more permits without waiting; returns their number.
    pub fn try_more(&mut self, wanted: usize) -> usize {
        let more = wanted.min(self.sends.available_permits());
        let taken = self.sends.try_acquire_many(more as u32).map(SemaphorePermit::forget).map_or(0, |()| more);
        self.count += taken;
        taken
    }
}

impl Drop for SendPermits {
    fn drop(&mut self) {
        self.sends.add_permits(self.count);
    }
}

/// Waits for a permit to recover a client of this user.
pub async fn restore_permit(share: &Share) -> Option<OwnedSemaphorePermit> {
    let restores = share.extension::<Permits>().restores.clone();
    restores.acquire_owned().await.ok()
}

/// The right to read a page, released when dropped.
pub struct PagePermit {
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
    pub async fn acquire(&self, share: &Share) -> PagePermit {
        // The holder's own permit first, so that its other requests do not wait in the common queue.
        let of_holder = share.extension::<Permits>().pages.clone().acquire_owned().await.ok();
        self.budget.space_for(share, "page").await;
        PagePermit { _of_holder: of_holder, _of_all: self.all.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use confab_socketio::budget::Holder;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    /// Longer than the check interval of a holder above its share.
    const LONG: Duration = Duration::from_millis(500);
    const MEBIBYTE: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn one_holder_reads_two_pages_and_none_above_its_share() {
        let budget = Arc::new(Budget::new(100 * MEBIBYTE, Arc::default()));
        let pages = Pages::new(budget.clone());
        let [one, other] = [1, 2].map(|id| budget.share(Holder::Owner(Uuid::from_u128(id))));
        let permits = [pages.acquire(&one).await, pages.acquire(&one).await];
        let waits = async |share: &Arc<Share>| timeout(LONG, pages.acquire(share)).await.is_err();
        assert_eq!([waits(&one).await, waits(&other).await], [true, false]);
        drop(permits);
        assert!(!waits(&one).await);
        budget.count(&one, 0, 60 * MEBIBYTE, true);
        assert_eq!([waits(&one).await, waits(&other).await], [true, false]);
        // A holder above its share holds no common permit while it waits.
        let waiting = (0..MAX_PAGES).map(|_| Box::pin(pages.acquire(&one))).collect::<Vec<_>>();
        let mut all = futures::future::join_all(waiting);
        assert!(futures::poll!(&mut all).is_pending());
        assert!(!waits(&other).await);
    }

    #[tokio::test]
    async fn permits_to_send_return_when_they_are_dropped() {
        let share = Share::default();
        let mut permits = SendPermits::acquire(&share).await;
        assert_eq!(permits.try_more(1000), MAX_SENDS - 1);
        let mut waiting = Box::pin(SendPermits::acquire(&share));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(permits);
        assert_eq!(waiting.await.try_more(1000), MAX_SENDS - 1);
    }
}

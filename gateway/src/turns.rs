//! How many operations of one user, or of one address whose user is not known, are in progress at once. The rest wait, so that
//! they do not queue before those of other users.

use std::sync::Arc;

use confab_socketio::budget::{Budget, Share};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Most sends and uploads of one user in progress at once.
const MAX_SENDS: usize = 128;
/// Most clients of one user that are recovered at once: a quarter of all.
const MAX_RESTORES: usize = 16;
/// Most pages that are read for one holder at once: the largest take milliseconds of a processor.
const MAX_PAGES_OF_HOLDER: usize = 2;
/// Most pages of lists that are read at once for all holders.
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

/// Permits for a user's sends in progress.
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

    /// Takes up to `wanted` more permits without waiting; returns how many.
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

/// The right to read a page, until it is dropped.
pub struct PagePermit {
    _of_holder: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Bounds the pages of lists that are read at once: a page is held whole before any of it is sent.
pub struct Pages {
    budget: Arc<Budget>,
    all: Arc<Semaphore>,
}

impl Pages {
    /// Pages whose bytes are counted in `budget`.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, all: Arc::new(Semaphore::new(MAX_PAGES)) }
    }

    /// Waits until a page may be read for the holder of this share.
    pub async fn acquire(&self, share: &Share) -> PagePermit {
        // The holder's own permit first: its other requests wait outside, not in the common queue.
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

    /// Longer than a holder above its share waits before it is checked again.
    const LONG: Duration = Duration::from_millis(500);
    const MEBIBYTE: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn one_holder_reads_two_pages_at_once_and_none_while_it_leaves_much_unread() {
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
        // A holder that waits for space takes no permit from others.
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

//! State that all outboxes of a gateway share: how much they hold in total and for each user, and whether writing is
//! allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::metrics::METRICS;
use crate::pulse::Pulse;

/// Smaller changes of an outbox are not counted, so that clients that keep up seldom touch the counters.
const STEP: usize = 16 * 1024;
/// The same for polling sessions, of which a client can have many without a connection.
const STEP_POLLING: usize = 1024;
/// Most sends and uploads of one user in progress at once.
const MAX_SENDS: usize = 128;
/// Most clients of one user that are recovered at once: a quarter of all.
const MAX_RESTORES: usize = 16;
/// How often a user above its share is checked again, unless the total falls before.
const LOOK: Duration = Duration::from_millis(250);

/// State that all outboxes share.
pub struct Shared {
    /// Most bytes that all outboxes may hold together.
    limit: usize,
    total: AtomicUsize,
    /// How many shares hold bytes.
    holders: AtomicUsize,
    over: Notify,
    /// The total has fallen to half the limit.
    fell: Notify,
    pulse: Arc<Pulse>,
}

/// The resources of one user's sockets, or of one address's sockets that have not connected.
#[derive(Debug)]
pub struct Share {
    /// Bytes held by all outboxes of this share.
    bytes: AtomicUsize,
    sends: Semaphore,
    restores: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self { bytes: AtomicUsize::new(0), sends: Semaphore::new(MAX_SENDS), restores: Arc::new(Semaphore::new(MAX_RESTORES)) }
    }
}

impl Share {
    /// Bytes held by all outboxes of this share.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
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

impl Shared {
    /// Outboxes that hold at most `limit` bytes together; nothing is written while `pulse` is paused.
    pub fn new(limit: usize, pulse: Arc<Pulse>) -> Self {
        let [total, holders] = [0; 2].map(AtomicUsize::new);
        Self { limit, total, holders, over: Notify::new(), fell: Notify::new(), pulse }
    }

    /// Records that an outbox has changed from `counted` to `bytes`; returns the bytes counted for it now.
    pub(super) fn count(&self, share: &Share, counted: usize, bytes: usize, on_websocket: bool) -> usize {
        let step = if on_websocket { STEP } else { STEP_POLLING };
        if counted.abs_diff(bytes) < step && (bytes != 0 || counted == 0) {
            return counted;
        }
        if bytes < counted {
            self.shrink(share, counted - bytes);
            let (before, half) = (self.total.fetch_sub(counted - bytes, Ordering::Relaxed), self.limit / 2);
            if before > half && before - (counted - bytes) <= half {
                self.fell.notify_waiters();
            }
        } else {
            self.grow(share, bytes - counted);
            if self.total.fetch_add(bytes - counted, Ordering::Relaxed) + (bytes - counted) > self.limit {
                self.over.notify_one();
            }
        }
        bytes
    }

    /// Moves counted bytes from one share to another.
    pub(super) fn pass(&self, counted: usize, from: &Share, to: &Share) {
        if counted > 0 {
            self.shrink(from, counted);
            self.grow(to, counted);
        }
    }

    fn grow(&self, share: &Share, bytes: usize) {
        if share.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.holders.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shrink(&self, share: &Share, bytes: usize) {
        if share.bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Bytes held by all outboxes.
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes held above the limit.
    pub fn excess(&self) -> usize {
        self.bytes().saturating_sub(self.limit)
    }

    /// Completes when more than the limit is held.
    pub async fn over(&self) {
        while self.excess() == 0 {
            self.over.notified().await;
        }
    }

    /// Completes when more may be prepared for the user of this share: at once, unless more than half of the limit is
    /// held and the user holds more than an equal part of that half. The wait is counted under `what`.
    pub async fn roomy(&self, share: &Share, what: &'static str) {
        if self.has_room_for(share) {
            return;
        }
        METRICS.outbox_waits.hit(what);
        loop {
            let fell = self.fell.notified();
            if self.has_room_for(share) {
                return;
            }
            let _ = timeout(LOOK, fell).await;
        }
    }

    /// Whether at most half of the limit is held.
    pub fn is_roomy(&self) -> bool {
        self.bytes() <= self.limit / 2
    }

    fn has_room_for(&self, share: &Share) -> bool {
        self.is_roomy() || share.bytes() <= self.limit / 2 / self.holders.load(Ordering::Relaxed).max(1)
    }

    /// Whether writing is suspended.
    pub fn is_paused(&self) -> bool {
        self.pulse.is_paused()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(usize::MAX, Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_counted_follows_what_is_held() {
        let (shared, share) = (Shared::new(3 * STEP, Arc::default()), Share::default());
        let mut counted = 0;
        for (bytes, expected) in [(STEP - 1, 0), (STEP, STEP), (2 * STEP - 1, STEP), (3 * STEP, 3 * STEP), (7, 7), (0, 0), (7, 0)] {
            counted = shared.count(&share, counted, bytes, true);
            assert_eq!([counted, shared.bytes(), share.bytes()], [expected; 3], "{bytes}");
        }
        assert_eq!(shared.count(&share, 0, STEP_POLLING, false), STEP_POLLING, "sessions that poll are counted more exactly");
        shared.count(&share, STEP_POLLING, 0, false);
        let mut over = std::pin::pin!(shared.over());
        assert!(futures::poll!(&mut over).is_pending());
        shared.count(&share, 0, 3 * STEP, true);
        assert!(futures::poll!(&mut over).is_pending());
        let other = shared.count(&share, 0, STEP, true);
        over.await;
        shared.count(&share, other, 0, true);
        assert_eq!(shared.excess(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_users_above_their_share_wait() {
        let shared = Shared::new(100 * STEP, Arc::default());
        let [heavy, light, idle] = [(); 3].map(|()| Share::default());
        shared.count(&heavy, 0, 90 * STEP, true);
        shared.count(&light, 0, 10 * STEP, true);
        let waits = async |share| timeout(LOOK / 2, shared.roomy(share, "join")).await.is_err();
        assert_eq!([waits(&heavy).await, waits(&light).await, waits(&idle).await], [true, false, false]);
        // With many holders the equal part is small; a user that holds nothing never waits.
        let others = [(); 9].map(|()| Share::default());
        others.iter().for_each(|other| _ = shared.count(other, 0, STEP, true));
        assert_eq!([waits(&light).await, waits(&idle).await], [true, false]);
        // The wait ends as soon as the total has fallen, whichever user freed the bytes.
        let mut waiting = std::pin::pin!(shared.roomy(&light, "join"));
        assert!(futures::poll!(&mut waiting).is_pending());
        shared.count(&heavy, 90 * STEP, 0, true);
        assert!(futures::poll!(&mut waiting).is_ready());
    }

    #[test]
    fn a_share_is_left_with_all_that_was_counted_in_it() {
        let shared = Shared::new(usize::MAX, Arc::default());
        let [address, user] = [(); 2].map(|()| Share::default());
        let counted = shared.count(&address, 0, 5000, false);
        shared.pass(counted, &address, &user);
        assert_eq!([address.bytes(), user.bytes(), shared.bytes(), shared.holders.load(Ordering::Relaxed)], [0, 5000, 5000, 1]);
        shared.count(&user, counted, 0, false);
        assert_eq!([shared.bytes(), shared.holders.load(Ordering::Relaxed)], [0; 2]);
    }
}

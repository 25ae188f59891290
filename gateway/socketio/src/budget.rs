//! The memory limit for all clients together, and the bytes that each holder uses of it. A holder is an owner of
//! sessions or, for clients without a known owner, an address.

mod held;
mod share;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use confab_common::standstill::PauseDetector;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::metrics::METRICS;
use confab_common::tables::shrink;

pub use held::{Held, SMALL};
pub use share::{Cut, Holder, Share};

/// Smaller changes of an outbox are not counted, so that clients that read promptly rarely change the shared counters.
const STEP: usize = 16 * 1024;
/// The step for polling sessions. It is smaller, because a client can have many of them without a connection.
const STEP_POLLING: usize = 1024;
/// How often the bytes of a waiting holder are checked while the total does not fall.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Counts the bytes held for all clients and for each holder, and enforces the common limit.
pub struct Budget {
    /// Maximum number of bytes in total.
    limit: usize,
    total: AtomicUsize,
    /// The number of shares with bytes.
    holders: AtomicUsize,
    over: Notify,
    /// Notified when the total falls to half of the limit.
    fell: Notify,
    pauses: Arc<PauseDetector>,
    // Held for a look-up or a change, never across an await. No other lock is taken within.
    shares: Mutex<HashMap<Holder, Weak<Share>>>,
}

impl Budget {
    /// Creates a limit of `limit` bytes. Outboxes write nothing while `pauses` reports a pause of the process.
    pub fn new(limit: usize, pauses: Arc<PauseDetector>) -> Self {
        let [total, holders] = [0; 2].map(AtomicUsize::new);
        Self { limit, total, holders, over: Notify::new(), fell: Notify::new(), pauses, shares: Mutex::default() }
    }

    /// Returns the share of a holder, and creates it if necessary.
    pub fn share(self: &Arc<Self>, holder: Holder) -> Arc<Share> {
        let mut shares = self.shares.lock();
        let listed = shares.entry(holder).or_default();
        listed.upgrade().unwrap_or_else(|| {
            let share = Arc::new(Share::of(holder, self));
            *listed = Arc::downgrade(&share);
            share
        })
    }

    /// Removes a holder whose share was dropped, unless the holder has a new share already.
    fn forget(&self, holder: Holder) {
        let mut shares = self.shares.lock();
        if shares.get(&holder).is_some_and(|share| share.strong_count() == 0) {
            shares.remove(&holder);
            shrink(&mut shares);
        }
    }

    /// The shares with bytes, the largest first.
    pub fn largest(&self) -> Vec<(Holder, Arc<Share>)> {
        let shares = self
            .shares
            .lock()
            .iter()
            .filter_map(|(holder, share)| Some((*holder, share.upgrade()?)))
            .collect::<Vec<_>>();
        let mut shares = shares.into_iter().filter(|(_, share)| share.bytes() > 0).collect::<Vec<_>>();
        shares.sort_by_cached_key(|(_, share)| Reverse(share.bytes()));
        shares
    }

    /// Counts the change of an outbox from `counted` to `bytes` bytes. Returns the number of bytes counted now: changes
    /// of less than 16 KiB (1 KiB without a WebSocket) are not counted, except to 0.
    pub fn count(&self, share: &Share, counted: usize, bytes: usize, on_websocket: bool) -> usize {
        let step = if on_websocket { STEP } else { STEP_POLLING };
        if counted.abs_diff(bytes) < step && (bytes != 0 || counted == 0) {
            return counted;
        }
        if bytes < counted {
            self.release(share, counted - bytes);
        } else {
            self.take(share, bytes - counted);
        }
        bytes
    }

    fn take(&self, share: &Share, bytes: usize) {
        self.grow(share, bytes);
        if self.total.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            self.over.notify_one();
        }
    }

    fn release(&self, share: &Share, bytes: usize) {
        self.shrink(share, bytes);
        let (before, half) = (self.total.fetch_sub(bytes, Ordering::Relaxed), self.limit / 2);
        if before > half && before - bytes <= half {
            self.fell.notify_waiters();
        }
    }

    /// Moves counted bytes from one share to another.
    pub fn transfer(&self, counted: usize, from: &Share, to: &Share) {
        if counted > 0 {
            self.shrink(from, counted);
            self.grow(to, counted);
        }
    }

    fn grow(&self, share: &Share, bytes: usize) {
        if share.add(bytes) {
            self.holders.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shrink(&self, share: &Share, bytes: usize) {
        if share.subtract(bytes) {
            self.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The number of bytes in total.
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// The number of bytes above the limit; 0 within it.
    pub fn excess(&self) -> usize {
        self.bytes().saturating_sub(self.limit)
    }

    /// Completes when the total exceeds the limit. The server then evicts sessions and requests.
    pub async fn exceeded(&self) {
        while self.excess() == 0 {
            self.over.notified().await;
        }
    }

    /// Completes when the application may prepare more data for the holder of this share. This waits only while more
    /// than half of the limit is in use and the holder has more than an equal part of that half. The metric
    /// `confab_outbox_waits_total` counts the wait under `what`.
    pub async fn space_for(&self, share: &Share, what: &'static str) {
        if self.has_space_for(share) {
            return;
        }
        METRICS.outbox_waits.hit(what);
        loop {
            let fell = self.fell.notified();
            if self.has_space_for(share) {
                return;
            }
            let _ = timeout(CHECK_INTERVAL, fell).await;
        }
    }

    /// Whether at most half of the limit is in use.
    pub fn is_ample(&self) -> bool {
        self.bytes() <= self.limit / 2
    }

    fn has_space_for(&self, share: &Share) -> bool {
        self.is_ample() || share.bytes() <= self.limit / 2 / self.holders.load(Ordering::Relaxed).max(1)
    }

    /// Whether writing is suspended because the process was paused (SIGSTOP, a frozen machine) and has not resumed.
    pub fn is_paused(&self) -> bool {
        self.pauses.is_paused()
    }
}

impl Default for Budget {
    /// Creates a budget without a limit.
    fn default() -> Self {
        Self::new(usize::MAX, Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_count_follows_the_bytes() {
        let (budget, share) = (Budget::new(3 * STEP, Arc::default()), Share::default());
        let mut counted = 0;
        for (bytes, expected) in
            [(STEP - 1, 0), (STEP, STEP), (2 * STEP - 1, STEP), (3 * STEP, 3 * STEP), (7, 7), (0, 0), (7, 0)]
        {
            counted = budget.count(&share, counted, bytes, true);
            assert_eq!([counted, budget.bytes(), share.bytes()], [expected; 3], "{bytes}");
        }
        assert_eq!(budget.count(&share, 0, STEP_POLLING, false), STEP_POLLING, "polling sessions have a smaller step");
        budget.count(&share, STEP_POLLING, 0, false);
        let mut over = std::pin::pin!(budget.exceeded());
        assert!(futures::poll!(&mut over).is_pending());
        budget.count(&share, 0, 3 * STEP, true);
        assert!(futures::poll!(&mut over).is_pending());
        let other = budget.count(&share, 0, STEP, true);
        over.await;
        budget.count(&share, other, 0, true);
        assert_eq!(budget.excess(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_holders_above_their_share_wait() {
        let budget = Budget::new(100 * STEP, Arc::default());
        let [heavy, light, idle] = [(); 3].map(|()| Share::default());
        budget.count(&heavy, 0, 90 * STEP, true);
        budget.count(&light, 0, 10 * STEP, true);
        let waits = async |share| timeout(CHECK_INTERVAL / 2, budget.space_for(share, "join")).await.is_err();
        assert_eq!([waits(&heavy).await, waits(&light).await, waits(&idle).await], [true, false, false]);
        // With many holders, the equal part is small. A holder without bytes never waits.
        let others = [(); 9].map(|()| Share::default());
        others.iter().for_each(|other| _ = budget.count(other, 0, STEP, true));
        assert_eq!([waits(&light).await, waits(&idle).await], [true, false]);
        // The wait ends when the total falls, even if another holder released the bytes.
        let mut waiting = std::pin::pin!(budget.space_for(&light, "join"));
        assert!(futures::poll!(&mut waiting).is_pending());
        budget.count(&heavy, 90 * STEP, 0, true);
        assert!(futures::poll!(&mut waiting).is_ready());
    }

    #[test]
    fn a_transfer_moves_all_counted_bytes() {
        let budget = Budget::new(usize::MAX, Arc::default());
        let [address, owner] = [(); 2].map(|()| Share::default());
        let counted = budget.count(&address, 0, 5000, false);
        budget.transfer(counted, &address, &owner);
        assert_eq!(
            [address.bytes(), owner.bytes(), budget.bytes(), budget.holders.load(Ordering::Relaxed)],
            [0, 5000, 5000, 1]
        );
        budget.count(&owner, counted, 0, false);
        assert_eq!([budget.bytes(), budget.holders.load(Ordering::Relaxed)], [0; 2]);
    }
}

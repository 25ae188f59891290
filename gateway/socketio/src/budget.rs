//! The bytes that a server holds for its clients: in total, and for each owner of sessions or, where the owner is not known
//! yet, for each address.

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

/// Smaller changes of an outbox are not counted, so that clients that keep up seldom touch the counters.
const STEP: usize = 16 * 1024;
/// The same for polling sessions, of which a client can have many without a connection.
const STEP_POLLING: usize = 1024;
/// How often a holder above its share is checked again, unless the total falls before.
const LOOK: Duration = Duration::from_millis(250);

/// Counts the bytes held for all clients, and for each holder of a share of them.
pub struct Budget {
    /// Most bytes that may be held in total.
    limit: usize,
    total: AtomicUsize,
    /// How many shares hold bytes.
    holders: AtomicUsize,
    over: Notify,
    /// The total has fallen to half the limit.
    fell: Notify,
    pauses: Arc<PauseDetector>,
    // Held for a look-up or a change, never across an await. No other lock is taken within.
    shares: Mutex<HashMap<Holder, Weak<Share>>>,
}

impl Budget {
    /// Holds at most `limit` bytes; outboxes write nothing while `pauses` reports a pause.
    pub fn new(limit: usize, pauses: Arc<PauseDetector>) -> Self {
        let [total, holders] = [0; 2].map(AtomicUsize::new);
        Self { limit, total, holders, over: Notify::new(), fell: Notify::new(), pauses, shares: Mutex::default() }
    }

    /// The share of a holder.
    pub fn share(self: &Arc<Self>, holder: Holder) -> Arc<Share> {
        let mut shares = self.shares.lock();
        let listed = shares.entry(holder).or_default();
        listed.upgrade().unwrap_or_else(|| {
            let share = Arc::new(Share::of(holder, self));
            *listed = Arc::downgrade(&share);
            share
        })
    }

    /// Forgets a holder whose share is gone, unless it has another one by now.
    fn forget(&self, holder: Holder) {
        let mut shares = self.shares.lock();
        if shares.get(&holder).is_some_and(|share| share.strong_count() == 0) {
            shares.remove(&holder);
            shrink(&mut shares);
        }
    }

    /// The shares that hold bytes, the largest first.
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

    /// Records that an outbox has changed from `counted` to `bytes`; returns the bytes counted for it now.
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

    /// Bytes held in total.
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes held above the limit.
    pub fn excess(&self) -> usize {
        self.bytes().saturating_sub(self.limit)
    }

    /// Completes when more than the limit is held.
    pub async fn exceeded(&self) {
        while self.excess() == 0 {
            self.over.notified().await;
        }
    }

    /// Completes when more may be prepared for the holder of this share: at once, unless more than half of the limit is
    /// held and the holder has more than an equal part of that half. The wait is counted under `what` in
    /// `confab_outbox_waits_total`.
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
            let _ = timeout(LOOK, fell).await;
        }
    }

    /// Whether at most half of the limit is held.
    pub fn is_ample(&self) -> bool {
        self.bytes() <= self.limit / 2
    }

    fn has_space_for(&self, share: &Share) -> bool {
        self.is_ample() || share.bytes() <= self.limit / 2 / self.holders.load(Ordering::Relaxed).max(1)
    }

    /// Whether writing is suspended.
    pub fn is_paused(&self) -> bool {
        self.pauses.is_paused()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(usize::MAX, Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_counted_follows_what_is_held() {
        let (budget, share) = (Budget::new(3 * STEP, Arc::default()), Share::default());
        let mut counted = 0;
        for (bytes, expected) in
            [(STEP - 1, 0), (STEP, STEP), (2 * STEP - 1, STEP), (3 * STEP, 3 * STEP), (7, 7), (0, 0), (7, 0)]
        {
            counted = budget.count(&share, counted, bytes, true);
            assert_eq!([counted, budget.bytes(), share.bytes()], [expected; 3], "{bytes}");
        }
        assert_eq!(
            budget.count(&share, 0, STEP_POLLING, false),
            STEP_POLLING,
            "sessions that poll are counted more exactly"
        );
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
        let waits = async |share| timeout(LOOK / 2, budget.space_for(share, "join")).await.is_err();
        assert_eq!([waits(&heavy).await, waits(&light).await, waits(&idle).await], [true, false, false]);
        // With many holders the equal part is small; a holder of nothing never waits.
        let others = [(); 9].map(|()| Share::default());
        others.iter().for_each(|other| _ = budget.count(other, 0, STEP, true));
        assert_eq!([waits(&light).await, waits(&idle).await], [true, false]);
        // The wait ends as soon as the total has fallen, whichever holder freed the bytes.
        let mut waiting = std::pin::pin!(budget.space_for(&light, "join"));
        assert!(futures::poll!(&mut waiting).is_pending());
        budget.count(&heavy, 90 * STEP, 0, true);
        assert!(futures::poll!(&mut waiting).is_ready());
    }

    #[test]
    fn a_share_is_left_with_all_that_was_counted_in_it() {
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

//! Permits for uploads and for downloads, shared between users. One user alone gets nearly half of them. The more users
//! transfer files, the fewer permits each gets, so that all users have about the same number and some permits remain
//! free for new users.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// How long a transfer waits for a permit: less than a client waits for a small file.
const PERMIT_WAIT_LIMIT: Duration = Duration::from_secs(2);
/// When a client may retry a transfer that got no permit.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The kind of transfer that the permits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    Upload,
    Download,
}

/// The permits of a process.
pub struct TransferPermits(Arc<Shared>);

struct Shared {
    what: Transfer,
    total: usize,
    state: Mutex<State>,
    /// Notified when a permit becomes free.
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: Counts,
    waiting: Counts,
}

/// The number of permits of each user, and of all users.
#[derive(Default)]
struct Counts {
    of: HashMap<Uuid, usize>,
    all: usize,
}

/// A permit, which becomes free when it is dropped.
pub struct TransferPermit {
    shared: Arc<Shared>,
    user: Uuid,
}

/// Counts a user as waiting until it is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    user: Uuid,
}

impl Counts {
    fn of(&self, user: Uuid) -> usize {
        self.of.get(&user).copied().unwrap_or_default()
    }

    fn add(&mut self, user: Uuid) {
        *self.of.entry(user).or_default() += 1;
        self.all += 1;
    }

    fn remove(&mut self, user: Uuid) {
        if let Some(count) = self.of.get_mut(&user) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.of.remove(&user);
            }
        }
    }
}

impl TransferPermits {
    pub fn new(what: Transfer, total: usize) -> Self {
        Self(Arc::new(Shared { what, total, state: Mutex::default(), freed: Notify::new() }))
    }

    /// Takes a permit for a user; waits up to 2 s for one.
    ///
    /// # Errors
    /// `rate_limited` when the user has its full share, `unavailable` when all permits are taken.
    pub async fn take(&self, user: Uuid) -> Result<TransferPermit> {
        let deadline = Instant::now() + PERMIT_WAIT_LIMIT;
        let mut waiting = None;
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // From here on, no notification of a free permit is missed.
            freed.as_mut().enable();
            if let Some(permit) = self.0.permit(user) {
                return Ok(permit);
            }
            if waiting.is_none() {
                waiting = Some(self.0.wait(user).ok_or_else(|| self.0.refusal(user))?);
            }
            timeout_at(deadline, freed).await.map_err(|_| self.0.refusal(user))?;
        }
    }
}

impl Shared {
    fn permit(self: &Arc<Self>, user: Uuid) -> Option<TransferPermit> {
        let mut state = self.state.lock();
        let (has, free) = (state.taken.of(user), self.total - state.taken.all);
        // A tenth of the permits is reserved for users that have none.
        if free == 0 || (has > 0 && has >= free.saturating_sub(self.total / 10)) {
            return None;
        }
        state.taken.add(user);
        Some(TransferPermit { shared: self.clone(), user })
    }

    /// As many transfers may wait as there are permits; a quarter of those for one user.
    fn wait(&self, user: Uuid) -> Option<Waiting<'_>> {
        let mut state = self.state.lock();
        if state.waiting.all >= self.total || state.waiting.of(user) >= self.total.div_ceil(4) {
            return None;
        }
        state.waiting.add(user);
        Some(Waiting { shared: self, user })
    }

    fn refusal(&self, user: Uuid) -> Error {
        let (noun, full, share) = match self.what {
            Transfer::Upload => ("upload", "uploads", "uploads_per_user"),
            Transfer::Download => ("download", "downloads", "downloads_per_user"),
        };
        if self.state.lock().taken.of(user) == 0 {
            LIMITS.hit(full);
            let detail = format!("too many {noun}s in progress; try again");
            return Error::new(Code::Unavailable, detail).retry_in(RETRY_AFTER);
        }
        LIMITS.hit(share);
        let detail = format!("too many of your {noun}s are in progress; wait until one has ended");
        Error::new(Code::RateLimited, detail).retry_in(RETRY_AFTER)
    }
}

impl Drop for TransferPermit {
    fn drop(&mut self) {
        self.shared.state.lock().taken.remove(self.user);
        self.shared.freed.notify_waiters();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().waiting.remove(self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all permits that a user gets without waiting.
    fn fill(permits: &TransferPermits, user: Uuid) -> Vec<TransferPermit> {
        std::iter::from_fn(|| permits.0.permit(user)).collect()
    }

    fn user() -> Uuid {
        Uuid::now_v7()
    }

    #[test]
    fn one_user_cannot_take_all_permits() {
        for total in [1, 2, 3, 4, 10, 100, 1000] {
            let permits = TransferPermits::new(Transfer::Upload, total);
            let one = fill(&permits, user());
            assert!(!one.is_empty() && one.len() <= total.div_ceil(2), "{} of {total}", one.len());
            if total > 1 {
                assert!(!fill(&permits, user()).is_empty(), "of {total}");
            }
        }
    }

    #[test]
    fn permits_are_shared_fairly_with_new_users() {
        let permits = TransferPermits::new(Transfer::Upload, 100);
        let first = fill(&permits, user());
        assert_eq!(first.len(), 45);
        let rest = (0..8).map(|_| fill(&permits, user())).collect::<Vec<_>>();
        assert_eq!(rest.iter().map(Vec::len).collect::<Vec<_>>(), [23, 11, 6, 3, 1, 1, 1, 1]);
        // After the first user has ended some transfers, it gets no more permits than the others.
        drop(first);
        assert!(fill(&permits, user()).len() < 25);
    }

    #[test]
    fn user_without_permits_gets_the_last_one() {
        let permits = TransferPermits::new(Transfer::Upload, 100);
        let taken = (0..100).map(|_| permits.0.permit(user())).collect::<Option<Vec<_>>>();
        assert!(taken.is_some() && permits.0.permit(user()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_transfer_gets_a_freed_permit_or_times_out() {
        let permits = TransferPermits::new(Transfer::Upload, 10);
        let (ada, bob) = (user(), user());
        let mut adas = fill(&permits, ada);
        let begun = Instant::now();
        let refused = permits.take(ada).await.err().unwrap();
        assert_eq!(
            (refused.code, refused.retry_after, begun.elapsed()),
            (Code::RateLimited, Some(RETRY_AFTER), PERMIT_WAIT_LIMIT)
        );

        let others = (0..).map_while(|_| permits.0.permit(user())).collect::<Vec<_>>();
        assert_eq!(others.len() + adas.len(), 10);
        let refused = permits.take(bob).await.err().unwrap();
        assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(RETRY_AFTER)));
        let (permit, ()) = tokio::join!(permits.take(bob), async {
            tokio::time::sleep(PERMIT_WAIT_LIMIT / 2).await;
            adas.pop();
        });
        assert!(permit.is_ok());
        drop((permit, others, adas));
        let state = permits.0.state.lock();
        assert_eq!((state.taken.all, state.taken.of.len(), state.waiting.all, state.waiting.of.len()), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_transfers_are_bounded() {
        let permits = TransferPermits::new(Transfer::Upload, 8);
        let taken = (0..8).map(|_| permits.0.permit(user()).unwrap()).collect::<Vec<_>>();
        let ada = user();
        let begun = Instant::now();
        let asked = futures::future::join_all(
            (0..20).map(|_| async { permits.take(ada).await.err().map(|_| begun.elapsed()) }),
        )
        .await;
        let waited = asked.iter().filter(|time| **time == Some(PERMIT_WAIT_LIMIT)).count();
        assert_eq!((waited, asked.iter().filter(|time| **time == Some(Duration::ZERO)).count()), (2, 18));
        drop(taken);
    }
}

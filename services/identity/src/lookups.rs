//! Objects that a service returns by their ids, cached for a few seconds.

use std::time::Duration;

use confab_common::Result;
use moka::future::Cache;
use tokio::time::Instant;
use uuid::Uuid;

/// Objects by their ids. Concurrent look-ups of one id share one call. An answer is used for a limited time after its
/// call began, so that a change of the object takes effect within that time; a failure is not cached.
pub struct Lookups<V> {
    cache: Cache<Uuid, Looked<V>>,
    life: Duration,
}

#[derive(Clone)]
struct Looked<V> {
    /// When the call began.
    asked: Instant,
    /// `None`: there is no such object.
    found: Result<Option<V>>,
}

impl<V: Clone + Send + Sync + 'static> Lookups<V> {
    /// At most `capacity` answers, each used for `life`.
    pub fn new(capacity: u64, life: Duration) -> Self {
        Self { cache: Cache::new(capacity), life }
    }

    /// The object in the last answer, which may be out of date.
    pub async fn last(&self, id: Uuid) -> Option<V> {
        self.cache.get(&id).await?.found.ok()?
    }

    /// The object; `ask` calls the service, unless there is a recent answer.
    ///
    /// # Errors
    /// The error of the call.
    pub async fn find(&self, id: Uuid, ask: impl Future<Output = Result<Option<V>>>) -> Result<Option<V>> {
        let asked = Instant::now();
        let look = async { Looked { asked, found: ask.await } };
        self.cache.entry(id).or_insert_with_if(look, |looked| !self.is_fresh(looked)).await.into_value().found
    }

    /// Removes the answer about an object that this program has changed.
    pub async fn forget(&self, id: Uuid) {
        self.cache.invalidate(&id).await;
    }

    fn is_fresh(&self, looked: &Looked<V>) -> bool {
        looked.found.is_ok() && looked.asked.elapsed() < self.life
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use confab_common::Error;
    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const LIFE: Duration = Duration::from_secs(4);
    const ID: Uuid = Uuid::from_u128(1);

    /// Counts its calls.
    #[derive(Default)]
    struct Service(AtomicU32);

    impl Service {
        async fn ask(&self, answer: Result<Option<u32>>) -> Result<Option<u32>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            answer
        }

        fn calls(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_used_until_4_s_after_its_call_began() {
        let (lookups, service) = (Lookups::new(10, LIFE), Service::default());
        assert_eq!(lookups.last(ID).await, None);
        let begun = Instant::now();
        assert_eq!(lookups.find(ID, service.ask(Ok(Some(1)))).await.unwrap(), Some(1));
        advance(LIFE - begun.elapsed() - Duration::from_millis(1)).await;
        assert_eq!(lookups.find(ID, service.ask(Ok(Some(2)))).await.unwrap(), Some(1));
        assert_eq!((lookups.last(ID).await, service.calls()), (Some(1), 1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(lookups.last(ID).await, Some(1), "it is out of date, but known");
        assert_eq!(lookups.find(ID, service.ask(Ok(None))).await.unwrap(), None);
        assert_eq!(lookups.last(ID).await, None);
        assert_eq!(lookups.find(ID, service.ask(Ok(Some(3)))).await.unwrap(), None, "an absence is cached, too");
        lookups.forget(ID).await;
        assert_eq!(lookups.find(ID, service.ask(Ok(Some(3)))).await.unwrap(), Some(3));
        assert_eq!(service.calls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_look_ups_share_a_call() {
        let (lookups, service) = (Lookups::new(10, LIFE), Service::default());
        let found = join_all((0..20).map(|_| lookups.find(ID, service.ask(Ok(Some(1)))))).await;
        assert!(found.into_iter().all(|found| found.unwrap() == Some(1)));
        assert_eq!(service.calls(), 1);
        lookups.find(Uuid::from_u128(2), service.ask(Ok(None))).await.unwrap();
        assert_eq!(service.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_cached() {
        let (lookups, service) = (Lookups::new(10, LIFE), Service::default());
        lookups.find(ID, service.ask(Err(Error::unavailable("auth")))).await.unwrap_err();
        assert_eq!(lookups.find(ID, service.ask(Ok(Some(1)))).await.unwrap(), Some(1));
        advance(LIFE).await;
        lookups.find(ID, service.ask(Err(Error::unavailable("auth")))).await.unwrap_err();
        assert_eq!((lookups.last(ID).await, service.calls()), (None, 3));
    }
}

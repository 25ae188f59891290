//! Verifications that need an answer of another program. A request waits for them for a limited time. They go on
//! afterwards, so that a repeat of the request finds their outcomes.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use confab_common::telemetry::trace::Span;
use futures::future::BoxFuture;
use futures::poll;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::credential::Digest;

/// Most verifications in the background of a process. Each needs about 16 KiB and ends within 10 s.
pub const CAPACITY: usize = 1024;
/// How long a request waits for all its verifications together.
pub const WAIT: Duration = Duration::from_millis(400);
/// The same while verifications are slow: otherwise, each request with a credential of a slow issuer would wait again.
pub const SHORT_WAIT: Duration = Duration::from_millis(20);
/// How long verifications count as slow after one of them has taken longer than [`WAIT`].
const SLOW_FOR: Duration = Duration::from_secs(2);

/// Verifications by the digests of their credentials; clones share them. `V` is the outcome.
pub struct Background<V>(Arc<Inner<V>>);

struct Inner<V> {
    capacity: usize,
    // Locked for a look-up or a change, never across an await.
    state: Mutex<State<V>>,
}

struct State<V> {
    running: HashMap<Digest, Running<V>>,
    /// When a verification last was slow.
    slow: Option<Instant>,
}

struct Running<V> {
    begun: Instant,
    /// `None` until the verification has ended.
    outcome: watch::Receiver<Option<V>>,
}

/// Removes a verification that has ended, also by a panic.
struct Place<V> {
    background: Background<V>,
    name: Digest,
    begun: Instant,
}

impl<V> Clone for Background<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Clone for Running<V> {
    fn clone(&self) -> Self {
        Self { begun: self.begun, outcome: self.outcome.clone() }
    }
}

impl<V> Drop for Place<V> {
    fn drop(&mut self) {
        self.background.note(self.begun);
        self.background.0.state.lock().running.remove(&self.name);
    }
}

impl<V: Clone + Send + Sync + 'static> Background<V> {
    /// Runs at most `capacity` verifications at once.
    pub fn new(capacity: usize) -> Self {
        let state = State { running: HashMap::new(), slow: None };
        Self(Arc::new(Inner { capacity, state: Mutex::new(state) }))
    }

    /// Returns the outcomes of the verifications that end within [`WAIT`]. The others go on, and later callers with the
    /// same credentials join them. A verification is dropped if it cannot end at once and too many are running.
    pub async fn run(&self, verifications: Vec<(Digest, BoxFuture<'static, V>)>) -> Vec<(Digest, V)> {
        let (mut ended, mut running) = (Vec::with_capacity(verifications.len()), Vec::new());
        for (name, mut verification) in verifications {
            if let Some(joined) = self.join(&name) {
                running.push((name, joined));
                continue;
            }
            match poll!(&mut verification) {
                Poll::Ready(outcome) => ended.push((name, outcome)),
                Poll::Pending => running.extend(self.spawn(name, verification).map(|running| (name, running))),
            }
        }
        if !running.is_empty() {
            self.wait(&mut running).await;
        }
        ended.extend(running.into_iter().filter_map(|(name, running)| {
            let outcome = running.outcome.borrow().clone();
            Some((name, outcome?))
        }));
        ended
    }

    async fn wait(&self, running: &mut [(Digest, Running<V>)]) {
        let is_slow = self.0.state.lock().slow.is_some_and(|slow| slow.elapsed() < SLOW_FOR);
        let until = Instant::now() + if is_slow { SHORT_WAIT } else { WAIT };
        let all = async {
            for (_, running) in running.iter_mut() {
                drop(running.outcome.wait_for(Option::is_some).await);
            }
        };
        if timeout_at(until, all).await.is_err() {
            running
                .iter()
                .filter(|(_, running)| running.outcome.borrow().is_none())
                .for_each(|it| self.note(it.1.begun));
        }
    }

    fn join(&self, name: &Digest) -> Option<Running<V>> {
        self.0.state.lock().running.get(name).cloned()
    }

    /// Lets a verification go on in a task; `None` if too many are running.
    fn spawn(&self, name: Digest, verification: BoxFuture<'static, V>) -> Option<Running<V>> {
        let (sender, outcome) = watch::channel(None);
        let running = Running { begun: Instant::now(), outcome };
        {
            let mut state = self.0.state.lock();
            if let Some(joined) = state.running.get(&name) {
                return Some(joined.clone());
            }
            if state.running.len() >= self.0.capacity {
                return None;
            }
            state.running.insert(name, running.clone());
        }
        let place = Place { background: self.clone(), name, begun: running.begun };
        let span = Span::current();
        tokio::spawn(async move {
            let outcome = span.instrument(verification).await;
            sender.send_replace(Some(outcome));
            drop(place);
        });
        Some(running)
    }
}

impl<V> Background<V> {
    /// Records a verification that began at this time, as slow if it has taken longer than [`WAIT`].
    fn note(&self, begun: Instant) {
        if begun.elapsed() >= WAIT {
            self.0.state.lock().slow = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::{join, pending, ready};
    use tokio::time::sleep;

    use super::*;

    const NAMES: [Digest; 4] = [[1; 16], [2; 16], [3; 16], [4; 16]];

    /// A verification that takes this many milliseconds.
    fn after(ms: u64) -> BoxFuture<'static, u64> {
        async move {
            sleep(Duration::from_millis(ms)).await;
            ms
        }
        .boxed()
    }

    /// Timers are exact to 1 ms.
    fn is_about(elapsed: Duration, expected: Duration) -> bool {
        (expected..=expected + Duration::from_millis(2)).contains(&elapsed)
    }

    fn running<V: Clone + Send + Sync + 'static>(background: &Background<V>) -> usize {
        background.0.state.lock().running.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_400_ms_and_its_repeat_finds_the_outcome() {
        let background = Background::new(CAPACITY);
        let begun = Instant::now();
        let work = vec![(NAMES[0], after(700)), (NAMES[1], after(100)), (NAMES[2], ready(0).boxed())];
        assert_eq!(background.run(work).await, [(NAMES[2], 0), (NAMES[1], 100)]);
        assert!(is_about(begun.elapsed(), WAIT), "{:?}", begun.elapsed());
        assert_eq!(running(&background), 1);
        // The repeat joins the verification, which has only 290 ms left; its own would take 1 s.
        sleep(Duration::from_millis(290)).await;
        assert_eq!(background.run(vec![(NAMES[0], after(1000))]).await, [(NAMES[0], 700)]);
        assert!(begun.elapsed() < Duration::from_millis(720), "{:?}", begun.elapsed());
        confab_common::testing::eventually(|| running(&background) == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_verifications_are_slow_requests_wait_20_ms() {
        let background = Background::new(CAPACITY);
        background.run(vec![(NAMES[0], after(5000))]).await;
        let waited = async |name: usize, ms| {
            let begun = Instant::now();
            background.run(vec![(NAMES[name], after(ms))]).await;
            begun.elapsed()
        };
        // The same credential, another slow one, and a fast one.
        assert!(is_about(waited(0, 5000).await, SHORT_WAIT));
        assert!(is_about(waited(1, 1000).await, SHORT_WAIT));
        assert!(waited(2, 5).await < SHORT_WAIT);
        sleep(Duration::from_secs(5) + SLOW_FOR).await;
        assert!(is_about(waited(3, 5000).await, WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_a_verification() {
        let (background, calls) = (Background::new(CAPACITY), Arc::<AtomicUsize>::default());
        let verification = || {
            let calls = calls.clone();
            async move {
                sleep(Duration::from_millis(10)).await;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            .boxed()
        };
        let both =
            join(background.run(vec![(NAMES[0], verification())]), background.run(vec![(NAMES[0], verification())]));
        assert_eq!(both.await, (vec![(NAMES[0], ())], vec![(NAMES[0], ())]));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn verifications_in_the_background_are_bounded() {
        let background = Background::new(2);
        let work = NAMES.map(|name| (name, pending::<u64>().boxed()));
        assert!(background.run(work.into()).await.is_empty());
        assert_eq!(running(&background), 2);
        // What ends at once, and what is running already, needs no place.
        let work = vec![(NAMES[3], ready(1).boxed()), (NAMES[0], pending().boxed())];
        assert_eq!(background.run(work).await, [(NAMES[3], 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_verification_that_panics_leaves_its_place() {
        let background = Background::<u64>::new(1);
        let panics = async {
            sleep(Duration::from_millis(1)).await;
            [0_u64; 0].into_iter().max().expect("this one panics")
        };
        assert!(background.run(vec![(NAMES[0], panics.boxed())]).await.is_empty());
        confab_common::testing::eventually(|| running(&background) == 0).await;
        assert_eq!(background.run(vec![(NAMES[1], after(1))]).await, [(NAMES[1], 1)]);
    }
}

//! Delivers the events of an outbox to another service. Calls that wait for their own entries retry. A background sweep
//! delivers entries whose call ended early or whose process died. Pauses between attempts double up to a maximum, and
//! have jitter, so that calls and replicas that failed together do not retry together.

use std::time::Duration;

use tokio::time::sleep;

use crate::Result;
use crate::backoff::Backoff;
use crate::grpc::Call;

/// The options of one delivery. A second replica is tried after half of the time.
pub const DELIVERY: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));
/// How long an entry may wait for its turn in the other service. It is shorter than an attempt, so a single stuck entry
/// is rejected without costing the whole batch its answer.
pub const TURN_LIMIT: Duration = Duration::from_millis(800);
/// Maximum entries in one delivery.
pub const BATCH: u32 = 64;
/// How often an empty outbox is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE_OF_SWEEP: Duration = Duration::from_secs(2);
/// The longest pause between a call's retries. A call waits 2.5 s in total, and should notice soon that the other
/// service is back.
const LONGEST_PAUSE_OF_CALL: Duration = Duration::from_millis(200);

/// The result of one sweep.
#[derive(Debug, Default, Clone, Copy)]
pub struct Swept {
    /// Entries that the sweep tried to deliver.
    pub found: usize,
    /// Entries that need no further delivery.
    pub relayed: usize,
}

/// Delivers a call's own entries: retries with growing pauses until an attempt returns an outcome. May be dropped at
/// any time, because the sweep continues the delivery.
pub async fn deliver<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let mut backoff = Backoff::up_to(LONGEST_PAUSE_OF_CALL);
    loop {
        if let Some(outcome) = attempt().await {
            return outcome;
        }
        sleep(backoff.pause()).await;
    }
}

/// Sweeps the outbox without end: again at once while entries are relayed, and with growing pauses while no entry can
/// be relayed.
pub async fn sweep<F: Future<Output = Result<Swept>>>(mut sweep: impl FnMut() -> F) {
    let mut backoff = Backoff::up_to(LONGEST_PAUSE_OF_SWEEP);
    loop {
        match sweep().await {
            Ok(Swept { found: 0, .. }) => {
                backoff.reset();
                sleep(SWEEP_EVERY).await;
                continue;
            }
            Ok(Swept { relayed: 1.., .. }) => {
                backoff.reset();
                continue;
            }
            Ok(Swept { found, .. }) => {
                tracing::warn!(waiting = found, "the log rejects the outbox's events for now; retrying")
            }
            Err(error) => tracing::warn!(%error, "cannot deliver the outbox's events to the log; retrying"),
        }
        sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::Error;

    #[tokio::test(start_paused = true)]
    async fn call_retries_with_growing_pauses() {
        let (begin, tries) = (Instant::now(), Mutex::new(0));
        let outcome = deliver(|| async {
            *tries.lock() += 1;
            (*tries.lock() == 6).then_some("relayed")
        });
        assert_eq!(outcome.await, "relayed");
        let (longest, waited) = (25 + 50 + 100 + 200 + 200, begin.elapsed().as_millis());
        assert!((longest / 2..=longest).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn sweep_repeats_at_once_only_after_progress() {
        let (begin, when) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let results = [
            Ok((3, 3)),
            Ok((0, 0)),
            Ok((2, 0)),
            Err(Error::unavailable("the log")),
            Ok((2, 1)),
            Ok((1, 0)),
            Ok((0, 0)),
        ];
        let results = Mutex::new(results.into_iter());
        let sweeping = sweep(|| async {
            when.lock().push(begin.elapsed().as_millis());
            let next = results.lock().next();
            match next {
                Some(result) => result.map(|(found, relayed)| Swept { found, relayed }),
                None => std::future::pending().await,
            }
        });
        let _ = timeout(Duration::from_secs(60), sweeping).await;
        let when = when.lock();
        let pauses = when.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
        let bounds = [(0, 0), (1000, 1001), (12, 26), (25, 51), (0, 0), (12, 26), (1000, 1001)];
        assert_eq!(pauses.len(), bounds.len(), "{when:?}");
        for (pause, (least, most)) in pauses.into_iter().zip(bounds) {
            assert!((least..=most).contains(&pause), "{when:?}");
        }
    }
}

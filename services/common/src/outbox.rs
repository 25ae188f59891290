//! Emptying an outbox into another service, at the same pace everywhere: calls that wait for their own entries retry, and a
//! sweep behind them finds what calls gave up on or a dead process left.

use std::time::Duration;

use tokio::time::sleep;

use crate::Result;
use crate::grpc::Call;

/// One delivery; another replica is tried after half of the time.
pub const DELIVERY: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));
/// How long an entry may wait its turn in the other service: shorter than an attempt, so that a single stuck entry is refused
/// without costing the whole batch its answer.
pub const TURN: Duration = Duration::from_millis(800);
/// Most entries in one delivery.
pub const BATCH: u32 = 64;
/// How often the outbox is swept while it is empty.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE_OF_SWEEP: Duration = Duration::from_secs(2);
/// A call waits two and a half seconds in all, and should notice soon when the other service is back.
const LONGEST_PAUSE_OF_CALL: Duration = Duration::from_millis(200);

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Swept {
    /// Entries that were tried.
    pub found: usize,
    /// Those that need no further delivery.
    pub settled: usize,
}

/// Delivers a call's own entries: attempts until one returns an outcome, with growing pauses. May be dropped at any time: the
/// sweep continues.
pub async fn settle<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(outcome) = attempt().await {
            return outcome;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE_OF_CALL);
    }
}

/// Sweeps the outbox without end: again at once while entries are settled, and with growing pauses while none can be.
pub async fn sweep<F: Future<Output = Result<Swept>>>(mut sweep: impl FnMut() -> F) {
    let mut pause = FIRST_PAUSE;
    loop {
        match sweep().await {
            Ok(Swept { found: 0, .. }) => {
                pause = FIRST_PAUSE;
                sleep(SWEEP_EVERY).await;
                continue;
            }
            Ok(Swept { settled: 1.., .. }) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(Swept { found, .. }) => tracing::warn!(waiting = found, "the log rejects the outbox's events for now; retrying"),
            Err(error) => tracing::warn!(%error, "the outbox's events wait for the log; retrying"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE_OF_SWEEP);
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
    async fn a_call_retries_with_growing_pauses() {
        let (begin, tries) = (Instant::now(), Mutex::new(0));
        let outcome = settle(|| async {
            *tries.lock() += 1;
            (*tries.lock() == 6).then_some("settled")
        });
        assert_eq!(outcome.await, "settled");
        assert_eq!(begin.elapsed().as_millis(), 25 + 50 + 100 + 200 + 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_goes_on_at_once_only_while_something_is_settled() {
        let (begin, when) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let results = [Ok((3, 3)), Ok((0, 0)), Ok((2, 0)), Err(Error::unavailable("the log")), Ok((2, 1)), Ok((1, 0)), Ok((0, 0))];
        let results = Mutex::new(results.into_iter());
        let sweeping = sweep(|| async {
            when.lock().push(begin.elapsed().as_millis());
            let next = results.lock().next();
            match next {
                Some(result) => result.map(|(found, settled)| Swept { found, settled }),
                None => std::future::pending().await,
            }
        });
        let _ = timeout(Duration::from_secs(60), sweeping).await;
        assert_eq!(*when.lock(), [0, 0, 1000, 1025, 1075, 1075, 1100, 2100]);
    }
}

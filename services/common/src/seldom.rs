//! Limits how often a log line is written that clients can trigger at will.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shortest interval between two log lines.
pub const EVERY: Duration = Duration::from_secs(60);

/// Stores when the log line was last written.
// The lock is held for a comparison, never across an await.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether the caller may write the log line now. `true` starts a new interval.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// When `true` was last returned.
    #[cfg(any(test, feature = "testing"))]
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

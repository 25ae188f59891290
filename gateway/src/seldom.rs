//! Bounds how often the log speaks of something that clients can repeat at will.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often at most.
pub const EVERY: Duration = Duration::from_secs(60);

/// Remembers when the log last spoke of it.
// Held for a comparison, never across an await.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time again; if so, the caller logs it.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// When it was last due.
    #[cfg(test)]
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

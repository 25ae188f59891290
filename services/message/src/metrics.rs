//! The message service's metrics.

use std::sync::LazyLock;

use confab_common::metrics::{Counters, counter, gauge, histogram};
use metrics::{Counter, Gauge, Histogram};

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    /// Events per append.
    pub append_rows: Histogram,
    pub append: Histogram,
    /// How long the oldest event of an append has waited.
    pub queue: Histogram,
    /// New events in the log.
    pub appended: Counter,
    /// Repeated appends.
    pub resent: Counter,
    /// Appends that found a locked head.
    pub locked: Counter,
    /// Groups of events that a lane rejected.
    pub refused: Counters,
    /// Events whose text was erased.
    pub erased: Counter,
    /// Files that were deleted with their last message.
    pub dropped_files: Counter,
    /// Messages brought into the index, also again.
    pub indexed: Counter,
    /// The age of the oldest event that is not in the index.
    pub index_lag: Gauge,
    pub search: Histogram,
}

impl Metrics {
    fn new() -> Self {
        Self {
            append_rows: histogram("confab_message_append_rows", "Events per append of a lane", &[]),
            append: histogram("confab_message_append_seconds", "Duration of appends, including retries", &[]),
            queue: histogram("confab_message_queue_seconds", "Time that the oldest event of each append waited in its lane", &[]),
            appended: counter("confab_message_appended_total", "Events appended to the log", &[]),
            resent: counter("confab_message_append_resent_total", "Appends repeated because their outcome was unknown", &[]),
            locked: counter("confab_message_append_locked_total", "Appends that gave up waiting for the lock on a partition's head", &[]),
            refused: Counters::new(
                "confab_message_refused_total",
                "Groups of events that a lane rejected: the queue is too old (age) or too large (bytes), or the service is shutting down (leaving)",
                "reason",
            )
            .with(&["age", "bytes", "leaving"]),
            erased: counter("confab_message_erased_total", "Events of deleted messages, and edits of them, whose text was erased", &[]),
            dropped_files: counter("confab_message_dropped_files_total", "Files deleted because their last message was deleted", &[]),
            indexed: counter("confab_message_indexed_total", "Messages added to the index of searches, updated or removed", &[]),
            index_lag: gauge("confab_message_index_lag_seconds", "Age of the oldest event that is not in the index of searches", &[]),
            search: histogram("confab_message_search_seconds", "Duration of searches, including those that failed", &[]),
        }
    }
}

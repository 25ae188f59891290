//! The file service's metrics.

use std::sync::LazyLock;
use std::time::Instant;

use confab_common::Result;
use confab_common::metrics::{Counters, LIMITS, Outcomes, counter, gauge};
use metrics::{Counter, Gauge};

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    /// Uploads in progress.
    pub uploads: Gauge,
    /// Memory of the uploads' parts.
    pub upload_memory: Gauge,
    /// Duration of uploads.
    pub upload: Outcomes,
    /// Bytes received.
    pub uploaded: Counter,
    /// Bytes sent.
    pub downloaded: Counter,
    /// The results of sweeps.
    pub orphans: Counters,
    /// Whether another installation owns the objects.
    pub foreign: Gauge,
}

impl Metrics {
    fn new() -> Self {
        LIMITS.exist(&["file_size", "files_per_user", "bytes_per_user", "uploads", "uploads_per_user"]);
        LIMITS.exist(&["upload_memory", "downloads", "downloads_per_user"]);
        Self {
            uploads: gauge("confab_file_uploads", "Uploads in progress", &[]),
            upload_memory: gauge("confab_file_upload_memory_bytes", "Memory used by upload parts", &[]),
            upload: Outcomes::new(
                "confab_file_upload_seconds",
                "Duration of uploads; refused: a client error or a disconnect, failed: a server error",
                &[],
            ),
            uploaded: counter("confab_file_upload_bytes_total", "Bytes received in uploads, including failed ones", &[]),
            downloaded: counter("confab_file_download_bytes_total", "Bytes sent in downloads", &[]),
            orphans: Counters::new(
                "confab_file_orphans_total",
                "Orphans found by sweeps: objects without a file (removed), files without an object, unfinished uploads (aborted)",
                "kind",
            )
            .with(&["object", "file", "upload"]),
            foreign: gauge(
                "confab_file_objects_foreign",
                "1 while another installation owns the object store; the service then rejects uploads and removes no objects",
                &[],
            ),
        }
    }
}

/// An upload in progress. If it is dropped before its end, the client has disconnected.
pub struct UnderWay {
    begun: Instant,
    left: bool,
}

impl UnderWay {
    pub fn begin() -> Self {
        METRICS.uploads.increment(1);
        Self { begun: Instant::now(), left: true }
    }

    /// Ends the upload with its answer.
    pub fn end<T>(mut self, answer: &Result<T>) {
        METRICS.upload.record(answer, self.begun.elapsed());
        self.left = false;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        METRICS.uploads.decrement(1);
        if self.left {
            METRICS.upload.refused(self.begun.elapsed());
        }
    }
}

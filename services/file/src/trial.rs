//! Checks the object store at start, so that a wrong key or bucket is reported before the first upload.

use std::sync::Arc;
use std::time::Duration;

use confab_common::readiness::Readiness;
use tokio::time::sleep;

use crate::owned::Owned;

/// Pause before the next check.
const CHECK_PAUSE: Duration = Duration::from_secs(5);

/// Checks the store until it works. Meanwhile `/readyz` and the log report the fault.
pub async fn run(objects: Arc<Owned>, readiness: Readiness) {
    let mut said = None;
    while let Err(wrong) = objects.check().await {
        readiness.note("file storage", Some(wrong.clone()));
        if said.as_ref() != Some(&wrong) {
            tracing::error!(error = wrong, "file storage (CONFAB_OBJECTS) does not work");
            said = Some(wrong);
        }
        sleep(CHECK_PAUSE).await;
    }
    readiness.note("file storage", None);
    if said.is_some() {
        tracing::info!("file storage works");
    }
}

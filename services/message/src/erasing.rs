//! Erases the texts of deleted messages, and of their edits. Each replica does so; the store makes them take turns.

use std::sync::Arc;
use std::time::Duration;

use confab_common::Result;

use crate::metrics::METRICS;
use crate::store::Store;

/// How often a replica looks for deleted messages: a deletion is erased within a minute.
const ERASE_EVERY: Duration = Duration::from_secs(3);
/// Maximum messages in one step.
const MESSAGES: u32 = 20;
/// Maximum edits of one message in one step.
const EDITS: u32 = 100;

/// Erases deleted messages, again and again. After a failure the next attempt continues.
pub async fn run(store: Arc<dyn Store>) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(ERASE_EVERY).await;
        let outcome = erase_all(&*store).await;
        if let Err(error) = &outcome
            && !is_failing
        {
            tracing::warn!(%error, "cannot erase deleted messages now; trying again");
        }
        is_failing = outcome.is_err();
    }
}

/// Erases all messages that are deleted now, step by step.
async fn erase_all(store: &dyn Store) -> Result<()> {
    let mut events = 0;
    let outcome = loop {
        match store.erase_deleted(MESSAGES, EDITS).await {
            Ok(erased) => {
                METRICS.erased.increment(erased.events);
                events += erased.events;
                if !erased.more {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
    };
    if events > 0 {
        tracing::info!(events, "erased the texts of deleted messages");
    }
    outcome
}

//! Updates rooms that an earlier release created, so that they are found. That release compared and searched names in
//! lower case instead of case folding; the two differ only for a few letters (ß, ς, İ …).

use std::sync::Arc;
use std::time::Duration;

use confab_common::Result;
use uuid::Uuid;

use crate::store::{Store, Stored};

/// Rooms per read.
const PAGE: u32 = 500;
const RETRY: Duration = Duration::from_secs(10);

/// Converts all rooms to the current forms, once.
pub(super) async fn run(store: Arc<dyn Store>) {
    while let Err(error) = refold(store.as_ref()).await {
        tracing::warn!(%error, "cannot convert the names of rooms to their current form");
        tokio::time::sleep(RETRY).await;
    }
}

pub(super) async fn refold(store: &dyn Store) -> Result<()> {
    let mut after = Uuid::nil();
    loop {
        let rooms = store.beyond_ascii(after, PAGE).await?;
        let Some(last) = rooms.last() else { return Ok(()) };
        after = last.room.id;
        for Stored { room, folded_name, search } in rooms {
            if folded_name != room.folded_name() || search != room.search() {
                store.refold(room).await?;
            }
        }
    }
}

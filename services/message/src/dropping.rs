//! Drops files that no message has since a message was deleted. The log decides and marks them as deleted; then the
//! file service deletes them. Each replica does so: the store makes their decisions take turns, and the deletion of a
//! file can be repeated.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::{Error, Result};
use confab_proto::file::v1::DropFilesRequest;
use confab_proto::file::v1::file_service_client::FileServiceClient;
use uuid::Uuid;

use crate::metrics::METRICS;
use crate::store::{RoomFile, Store};

const CALL: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_secs(1));
/// How often a replica looks for such files: together with the call, files disappear within 1 s after the deletion.
const DROP_EVERY: Duration = Duration::from_millis(500);
/// Longest pause while the file service or the database fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Files in one step and in one call.
const FILES: u32 = 100;

/// Drops files, again and again. After a failure the next attempt continues.
pub async fn run(store: Arc<dyn Store>, file: Transport) {
    let file = FileServiceClient::new(file);
    let mut pause = DROP_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match drop_all(&*store, &file).await {
            Ok(()) => DROP_EVERY,
            Err(error) => {
                if pause == DROP_EVERY {
                    tracing::warn!(%error, "cannot drop the files of deleted messages now; trying again");
                }
                (pause * 2).min(LONGEST_PAUSE)
            }
        };
    }
}

/// Drops all files that no message has now, step by step.
async fn drop_all(store: &dyn Store, file: &FileServiceClient<Transport>) -> Result<()> {
    loop {
        let judged = store.drops().judge_files(FILES).await?;
        for of_room in judged.to_drop.chunk_by(|one, next| one.0 == next.0) {
            drop_files(file, of_room).await?;
            store.drops().files_dropped(of_room.to_vec()).await?;
            METRICS.dropped_files.increment(of_room.len() as u64);
        }
        if !judged.more {
            return Ok(());
        }
    }
}

/// Deletes files of one room in the file service.
async fn drop_files(file: &FileServiceClient<Transport>, of_room: &[RoomFile]) -> Result<()> {
    let room = of_room.first().map_or(Uuid::nil(), |((_, room), _)| *room);
    let ids = of_room.iter().map(|(_, id)| id.to_string()).collect();
    let question = DropFilesRequest { room_id: room.to_string(), ids };
    file.clone().drop_files(request(question, CALL)).await.map(drop).map_err(Error::from)
}

#[cfg(test)]
mod tests;

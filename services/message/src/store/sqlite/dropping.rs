//! The files of deleted messages.

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, params};

use super::{Sqlite, rows};
use crate::store::{DropStore, Judged, RoomFile};

const DROPPED: &str =
    "/* files_dropped */ DELETE FROM files_to_drop WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3";

impl DropStore for Sqlite {
    fn judge_files(&self, limit: u32) -> BoxFuture<'_, Result<Judged>> {
        async move {
            // Without such files, the writer is left to the appends.
            if self.database.read(|connection| queue(connection, 1)).await?.is_empty() {
                return Ok(Judged::default());
            }
            self.database.write(move |connection| judge(connection, limit)).await
        }
        .boxed()
    }

    fn files_dropped(&self, files: Vec<RoomFile>) -> BoxFuture<'_, Result<()>> {
        let write = move |connection: &Connection| {
            let mut dropped = connection.prepare_cached(DROPPED)?;
            for ((partition, room), file) in &files {
                dropped.execute(params![partition, room.as_bytes(), file.as_bytes()])?;
            }
            Ok(())
        };
        self.database.write(write).boxed()
    }
}

fn queue(connection: &Connection, limit: u32) -> Result<Vec<RoomFile>> {
    let read = "/* judge_files */ SELECT partition, room_id, file_id FROM files_to_drop
        ORDER BY partition, room_id, file_id LIMIT ?1";
    let mut statement = connection.prepare_cached(read)?;
    let files = statement.query_map([limit], |row| Ok(((row.get(0)?, rows::uuid(row, 1)?), rows::uuid(row, 2)?)))?;
    Ok(files.collect::<rusqlite::Result<_>>()?)
}

fn judge(connection: &Connection, limit: u32) -> Result<Judged> {
    let queue = queue(connection, limit)?;
    let mut judged = Judged { more: queue.len() == limit as usize, ..Judged::default() };
    let stays = "/* judge_files */ SELECT 1
        WHERE EXISTS (SELECT 1 FROM file_uses WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3)
            AND NOT EXISTS (SELECT 1 FROM deleted_files WHERE partition = ?1 AND room_id = ?2 AND file_id = ?3)";
    let mark = "/* judge_files */ INSERT INTO deleted_files (partition, room_id, file_id) VALUES (?1, ?2, ?3)
        ON CONFLICT DO NOTHING";
    for ((partition, room), file) in queue {
        let key = params![partition, room.as_bytes(), file.as_bytes()];
        if connection.prepare_cached(stays)?.exists(key)? {
            connection.prepare_cached(DROPPED)?.execute(key)?;
        } else {
            connection.prepare_cached(mark)?.execute(key)?;
            judged.to_drop.push(((partition, room), file));
        }
    }
    Ok(judged)
}

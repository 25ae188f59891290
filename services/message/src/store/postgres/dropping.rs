//! The files of deleted messages.

use confab_common::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::Postgres;
use crate::store::{DropStore, Judged, RoomFile};

const QUEUE: &str = "/* judge_files */ SELECT partition, room_id, file_id FROM files_to_drop
    ORDER BY partition, room_id, file_id LIMIT $1";
const JUDGE: &str = "/* judge_files */ SELECT drop_file($1, $2, $3)";
const DROPPED: &str = "/* files_dropped */ DELETE FROM files_to_drop t
    USING unnest($1::integer[], $2::uuid[], $3::uuid[]) AS d (partition, room_id, file_id)
    WHERE t.partition = d.partition AND t.room_id = d.room_id AND t.file_id = d.file_id";

impl DropStore for Postgres {
    fn judge_files(&self, limit: u32) -> BoxFuture<'_, Result<Judged>> {
        async move {
            let rows = self.0.query(QUEUE, &[&i64::from(limit)]).await?;
            let mut judged = Judged { more: rows.len() == limit as usize, ..Judged::default() };
            for row in &rows {
                let (partition, room, file): (i32, Uuid, Uuid) = (row.get(0), row.get(1), row.get(2));
                let verdict = self.0.query(JUDGE, &[&partition, &room, &file]).await?;
                if verdict.first().is_some_and(|row| row.get(0)) {
                    judged.to_drop.push(((partition as u32, room), file));
                }
            }
            Ok(judged)
        }
        .boxed()
    }

    fn files_dropped(&self, files: Vec<RoomFile>) -> BoxFuture<'_, Result<()>> {
        async move {
            let partitions = files.iter().map(|((partition, _), _)| *partition as i32).collect::<Vec<_>>();
            let rooms = files.iter().map(|((_, room), _)| *room).collect::<Vec<_>>();
            let ids = files.iter().map(|(_, file)| *file).collect::<Vec<_>>();
            self.0.execute(DROPPED, &[&partitions, &rooms, &ids]).await.map(drop)
        }
        .boxed()
    }
}

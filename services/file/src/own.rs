//! The list of a user's own uploads, without those in rooms that the user may not read any more.

use std::collections::BTreeSet;

use confab_common::Result;
use uuid::Uuid;

use crate::service::Files;
use crate::store::{File, Of, Position};

/// How often one call reads files until its page is full.
const ROUNDS: usize = 5;
/// How many files each round after the first reads.
const READ_ON: u32 = 200;

impl Files {
    /// Returns up to `limit` uploads of a user below a position, newest first, and the position from which the list
    /// continues. The room service is asked once for the files of each round. One call reads at most about 1,000 files,
    /// so a page may be short although the list continues.
    pub async fn list_own(&self, user: Uuid, mut below: Position, limit: u32) -> Result<(Vec<File>, Option<Position>)> {
        let (mut page, mut count) = (Vec::new(), limit + 1);
        for _ in 0..ROUNDS {
            let files = self.store.list(Of::Uploader(user), below, count).await?;
            let is_end = files.len() < count as usize;
            below = files.last().map_or(below, File::position);
            page.extend(self.still_readable(files, user).await?);
            if page.len() > limit as usize {
                page.truncate(limit as usize);
                let next = page.last().map(File::position);
                return Ok((page, next));
            }
            if is_end {
                return Ok((page, None));
            }
            count = READ_ON;
        }
        Ok((page, Some(below)))
    }

    async fn still_readable(&self, mut files: Vec<File>, user: Uuid) -> Result<Vec<File>> {
        let rooms = files.iter().filter_map(|file| file.room).collect::<BTreeSet<_>>();
        let readable = self.rights.readable(rooms, user).await?;
        files.retain(|file| file.room.is_none_or(|room| readable.contains(&room)));
        Ok(files)
    }
}

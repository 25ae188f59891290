//! Read markers of users, and what they want to be notified of.

use confab_common::{Code, Error, Result, clock, text};

use super::{MAX_ROOMS, Reading, Service};
use crate::store::{Mark, Marked, Marker, Notify, Receipt};

/// Maximum marks in one call.
pub const MAX_MARKS: usize = 1024;
/// Maximum members of a room with read receipts.
const MAX_RECEIPTS: u32 = 1000;

/// A mark as a caller sends it.
pub struct Asked<'a> {
    pub room: &'a str,
    pub user: &'a str,
    pub seq: u64,
    pub age_ms: u32,
    pub back: bool,
}

impl Service {
    /// Moves read markers. Each mark has its own outcome, in their order.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or too many members with receipts; when the database fails.
    pub async fn mark(&self, asked: &[Asked<'_>], receipts_max: u32) -> Result<Vec<Result<Marked>>> {
        if receipts_max > MAX_RECEIPTS {
            return Err(Error::field("receiptsMaxMembers", format!("must be at most {MAX_RECEIPTS}")));
        }
        let mark = |asked: &Asked<'_>| {
            let room = text::id("roomId", asked.room)?;
            Ok(Mark {
                room: (self.partition(room), room),
                user: text::id("userId", asked.user)?,
                seq: asked.seq,
                age_ms: asked.age_ms,
                back: asked.back,
            })
        };
        let marks = asked.iter().map(mark).collect::<Result<Vec<_>>>()?;
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let marked = self.store.marks().mark(marks, receipts_max, clock::now_ms()).await?;
        Ok(marked.into_iter().map(|marked| marked.ok_or_else(not_a_member)).collect())
    }

    /// Returns the markers of a user: in these rooms, or in all rooms of the user.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or more than 1000 rooms; when the database fails.
    pub async fn markers(&self, user: &str, rooms: &[String]) -> Result<Vec<Marker>> {
        let user = text::id("userId", user)?;
        if rooms.len() > MAX_ROOMS {
            return Err(Error::field("roomIds", format!("must be at most {MAX_ROOMS}")));
        }
        let key = |room: &String| text::id("roomId", room).map(|room| (self.partition(room), room));
        let rooms = rooms.iter().map(key).collect::<Result<Vec<_>>>()?;
        let mut markers = self.store.marks().markers(user, Some(rooms).filter(|rooms| !rooms.is_empty())).await?;
        let now_ms = clock::now_ms();
        markers.iter_mut().for_each(|marker| marker.notify = marker.notify.at(now_ms));
        Ok(markers)
    }

    /// Returns how far each member of a room has read.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or too high a maximum; `not_found` for a room that is not open or hidden
    /// from the reader; `forbidden` for a room with more members; when the database fails.
    pub async fn receipts(&self, reading: Reading<'_>, most: u32) -> Result<Vec<Receipt>> {
        if most > MAX_RECEIPTS {
            return Err(Error::field("most", format!("must be at most {MAX_RECEIPTS}")));
        }
        let (room, readers) = self.reading(&reading)?;
        let (receipts, access) = self.store.marks().receipts(room, most + 1, readers.clone()).await?;
        self.check_access(&readers, &access)?;
        if receipts.len() > most as usize {
            return Err(Error::new(
                Code::Forbidden,
                format!("only rooms of at most {most} members have read receipts"),
            ));
        }
        Ok(receipts)
    }

    /// Sets what a user wants to be notified of in a room.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id; `forbidden` for a user who is not a member; when the database fails.
    pub async fn set_notify(&self, room: &str, user: &str, notify: Notify) -> Result<()> {
        let (room, user) = (text::id("roomId", room)?, text::id("userId", user)?);
        let is_member = self.store.marks().set_notify((self.partition(room), room), user, notify).await?;
        if is_member { Ok(()) } else { Err(not_a_member()) }
    }
}

fn not_a_member() -> Error {
    Error::new(Code::Forbidden, "only members of the room have a read marker and notifications")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Level;

    #[test]
    fn a_level_ends_at_its_time() {
        let notify = Notify { level: Level::Nothing, until_ms: Some(10) };
        assert_eq!(notify.at(9), notify);
        assert_eq!(notify.at(10), Notify::default());
        assert_eq!(Notify { until_ms: None, ..notify }.at(i64::MAX).level, Level::Nothing);
    }
}

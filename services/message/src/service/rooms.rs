//! Rooms in the log: their opening, their history, and the right to read it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use confab_common::{Error, Result, text};
use uuid::Uuid;

use super::Service;
use crate::check::MAX_CHANGED;
use crate::store::{FORMAT, Limit, Member, Page, Readers, Reopening, RoomAccess, Window};

/// Maximum events in a page of history.
const MAX_PAGE: u32 = 200;
/// Maximum bytes in a page of history (4 MiB).
const MAX_PAGE_BYTES: u32 = 4 * 1024 * 1024;
/// Maximum readers of one page.
pub const MAX_READERS: usize = 1000;
/// When a caller may repeat a request that needs the log's newest format.
const AFTER_UPGRADE: Duration = Duration::from_secs(30);

/// A page of a room's history.
pub struct History {
    pub page: Page,
    /// Whether there are more events in the direction of reading.
    pub more: bool,
    pub access: RoomAccess,
}

/// The rejection of private rooms and members while replicas of the release before may be running.
pub fn former_format() -> Error {
    let detail = "the log is being upgraded; private rooms and members come with `confab-message finish-upgrade`";
    Error::new(confab_common::Code::Unavailable, detail).retry_in(AFTER_UPGRADE)
}

impl Service {
    /// Returns a page of a room's history of at most `limit` events and bytes, if one of the readers may read the room;
    /// without a reader, an anonymous reader reads. A moderator may read every room.
    ///
    /// # Errors
    /// `invalid_request` for a limit above 200 or more than 1000 readers; `not_found` for a room that is not open or
    /// hidden from the readers; when the database fails.
    pub async fn list(
        &self,
        room: &str,
        window: Window,
        (limit, max_bytes): (u32, u32),
        readers: &[String],
        moderator: bool,
    ) -> Result<History> {
        self.check_format()?;
        let room = text::id("roomId", room)?;
        if limit > MAX_PAGE {
            return Err(Error::field("limit", format!("must be at most {MAX_PAGE}")));
        }
        if readers.len() > MAX_READERS {
            return Err(Error::field("readers", format!("must be at most {MAX_READERS}")));
        }
        let readers = readers.iter().map(|reader| text::id("readers", reader)).collect::<Result<Vec<_>>>()?;
        let readers = if moderator { Readers::Moderator } else { Readers::Users(readers) };
        let bytes = if max_bytes == 0 { MAX_PAGE_BYTES } else { max_bytes.min(MAX_PAGE_BYTES) };
        let limit = Limit { events: limit, bytes };
        let (page, access) = self.store.list((self.partition(room), room), window, limit, readers.clone()).await?;
        self.saw(page.epoch);
        if !readers.may_read(&access) || (!access.exists && self.format() >= FORMAT) {
            return Err(Error::not_found("room"));
        }
        // A room's numbers are dense, so the ends of the page show whether there are more events.
        let more = match window {
            Window::After(seq) => page.events.last().map_or(seq, |event| event.seq) < page.head,
            Window::Before(seq) => page.events.first().map_or(seq.min(page.head + 1), |event| event.seq) > 1,
            Window::Latest => page.events.first().map_or(page.head + 1, |event| event.seq) > 1,
        };
        Ok(History { page, more, access })
    }

    /// Opens a room, unless it was opened before.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or more than 1000 members; `unavailable` for a private room in a log of the
    /// former format; when the database fails.
    pub async fn open_room(&self, room: &str, private: bool, members: Vec<Member>) -> Result<()> {
        self.check_format()?;
        let room = text::id("roomId", room)?;
        if members.len() > MAX_CHANGED {
            return Err(Error::field("members", format!("must be at most {MAX_CHANGED}")));
        }
        if private && self.format() < FORMAT {
            return Err(former_format());
        }
        self.store.open_room((self.partition(room), room), private, members).await
    }

    /// Checks that a user may post in a room, for the steps before the append that have effects of their own. The
    /// append checks it again.
    ///
    /// # Errors
    /// `not_found` for a room that is not open or hidden from the user; when the database fails.
    pub(super) async fn check_post(&self, (partition, room): (u32, Uuid), user: Uuid) -> Result<()> {
        if self.format() < FORMAT {
            return Ok(());
        }
        let head_alone = Limit { events: 0, bytes: 1 };
        let (_, access) = self.store.list((partition, room), Window::Latest, head_alone, vec![user].into()).await?;
        if access.exists && access.is_readable() { Ok(()) } else { Err(Error::not_found("room")) }
    }

    /// Gives a room its visibility and members again, after the log's database was restored to an older state. Has no
    /// effect in another epoch, or if the room was opened again in this epoch before.
    ///
    /// # Errors
    /// As [`open_room`](Self::open_room).
    pub async fn reopen_room(&self, room: &str, again: Reopening) -> Result<()> {
        self.check_format()?;
        let room = text::id("roomId", room)?;
        if again.members.len() > MAX_CHANGED {
            return Err(Error::field("members", format!("must be at most {MAX_CHANGED}")));
        }
        if again.private && self.format() < FORMAT {
            return Err(former_format());
        }
        self.store.reopen_room((self.partition(room), room), again).await
    }

    /// The log's format, as this replica last read it.
    pub fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
    }

    /// Rejects a call while the log has a newer format than this program: another replica can answer it.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) fn check_format(&self) -> Result<()> {
        if self.format() > FORMAT { Err(Error::unavailable("the log")) } else { Ok(()) }
    }

    /// Reads the log's format, which another replica may have raised.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read_format(&self) -> Result<()> {
        self.format.store(self.store.format().await?, Ordering::Relaxed);
        Ok(())
    }

    /// Records that all rooms are open. A process that is alone on its database then raises the format at once, because
    /// no replica of an earlier release can be running.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rooms_opened(&self) -> Result<()> {
        if self.format() >= FORMAT {
            return Ok(());
        }
        self.store.rooms_opened().await?;
        if self.store.is_exclusive() {
            self.store.finish_upgrade().await?;
        }
        self.read_format().await
    }
}

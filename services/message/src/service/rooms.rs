//! Rooms in the log: their opening, their history, and the right to read it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use confab_common::{Error, Result, text};
use uuid::Uuid;

use super::{MAX_PAGE_BYTES, Service};
use crate::check::MAX_CHANGED;
use crate::store::{
    Changed, FORMAT, FORMAT_WITH_MEMBERS, Limit, Member, Page, Readers, Reopening, RoomAccess, RoomKey, Window,
};

/// Maximum events in a page of history.
const MAX_PAGE: u32 = 200;
/// Maximum readers of one page.
pub const MAX_READERS: usize = 1000;
/// When a caller may repeat a request that needs the log's newest format.
pub(super) const AFTER_UPGRADE: Duration = Duration::from_secs(30);

/// A page of a room's history.
pub struct History {
    pub page: Page,
    /// Whether there are more events in the direction of reading.
    pub more: bool,
    /// The changed messages, if they were asked for.
    pub changed: Changed,
    pub access: RoomAccess,
}

/// Which part of a room's history to read.
pub struct Ask<'a> {
    pub room: &'a str,
    pub window: Window,
    /// At most this number of events.
    pub limit: u32,
    /// At most this number of bytes; 0 for the maximum.
    pub max_bytes: u32,
    /// The readers; without one, an anonymous reader reads.
    pub readers: &'a [String],
    /// Whether a moderator reads, who may read every room.
    pub moderator: bool,
    /// Read also messages from this `seq` on that were changed since.
    pub changed_from: Option<u64>,
}

/// The rejection of private rooms and members while replicas of the release before may be running.
pub fn former_format() -> Error {
    let detail = "the log is being upgraded; private rooms and members come with `confab-message finish-upgrade`";
    Error::new(confab_common::Code::Unavailable, detail).retry_in(AFTER_UPGRADE)
}

/// Returns the limit of a page of a room.
///
/// # Errors
/// `invalid_request` for a limit above 200.
pub(super) fn page_limit(events: u32, max_bytes: u32) -> Result<Limit> {
    if events > MAX_PAGE {
        return Err(Error::field("limit", format!("must be at most {MAX_PAGE}")));
    }
    Ok(Limit { events, bytes: super::at_most(max_bytes, MAX_PAGE_BYTES, MAX_PAGE_BYTES) })
}

/// Whether there are more events in the direction of reading. The first event of a room is no change, so there is one
/// below each other number.
pub(super) fn has_more(window: Window, page: &Page) -> bool {
    match window {
        Window::After(seq) => page.events.last().map_or(seq, |event| event.seq) < page.last,
        Window::Before(seq) => page.events.first().map_or(seq.min(page.head + 1), |event| event.seq) > 1,
        Window::Latest => page.events.first().map_or(page.head + 1, |event| event.seq) > 1,
    }
}

impl Service {
    /// Returns a page of a room's history, if one of the readers may read the room.
    ///
    /// # Errors
    /// `invalid_request` for a limit above 200, more than 1000 readers, or changed messages of a page that is not above
    /// a `seq`; `not_found` for a room that is not open or hidden from the readers; when the database fails.
    pub async fn list(&self, ask: Ask<'_>) -> Result<History> {
        self.check_format()?;
        let room = text::id("roomId", ask.room)?;
        if ask.readers.len() > MAX_READERS {
            return Err(Error::field("readers", format!("must be at most {MAX_READERS}")));
        }
        let readers = ask.readers.iter().map(|reader| text::id("readers", reader)).collect::<Result<Vec<_>>>()?;
        let readers = if ask.moderator { Readers::Moderator } else { Readers::Users(readers) };
        let (room, limit) = ((self.partition(room), room), page_limit(ask.limit, ask.max_bytes)?);
        let (page, changed, access) = match (ask.changed_from, ask.window) {
            (None, window) => {
                let (page, access) = self.store.list(room, window, limit, readers.clone()).await?;
                (page, Changed::default(), access)
            }
            (Some(from), Window::After(after)) => {
                self.store.catch_up(room, after, from, limit, readers.clone()).await?
            }
            (Some(_), _) => return Err(Error::field("changedFrom", "must be combined with after")),
        };
        self.check_readable(&readers, &page, &access)?;
        Ok(History { more: has_more(ask.window, &page), page, changed, access })
    }

    /// Checks that one of the readers may read the room of a page.
    ///
    /// # Errors
    /// `not_found` for a room that is not open or hidden from the readers.
    pub(super) fn check_readable(&self, readers: &Readers, page: &Page, access: &RoomAccess) -> Result<()> {
        self.saw(page.epoch);
        self.check_access(readers, access)
    }

    pub(super) fn check_access(&self, readers: &Readers, access: &RoomAccess) -> Result<()> {
        if !readers.may_read(access) || (!access.exists && self.format() >= FORMAT_WITH_MEMBERS) {
            return Err(Error::not_found("room"));
        }
        Ok(())
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
        if private && self.format() < FORMAT_WITH_MEMBERS {
            return Err(former_format());
        }
        self.store.open_room((self.partition(room), room), private, members).await
    }

    /// Checks that a user may post in a room, for the steps before the append that have effects of their own. The
    /// append checks it again.
    ///
    /// # Errors
    /// `not_found` for a room that is not open or hidden from the user; when the database fails.
    pub(super) async fn check_post(&self, room: RoomKey, user: Uuid) -> Result<()> {
        if self.format() < FORMAT_WITH_MEMBERS {
            return Ok(());
        }
        let head_alone = Limit { events: 0, bytes: 1 };
        let (_, access) = self.store.list(room, Window::Latest, head_alone, vec![user].into()).await?;
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
        if again.private && self.format() < FORMAT_WITH_MEMBERS {
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

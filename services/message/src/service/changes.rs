//! Reads of changed messages, for one reader.

use confab_common::{Code, Error, Result, text};

use super::rooms::{AFTER_UPGRADE, has_more, page_limit};
use super::{History, Service};
use crate::store::{Changed, ChangedBetween, Page, Readers, Role, RoomKey, Version, Window};

/// A room and its reader.
pub struct Reading<'a> {
    pub room: &'a str,
    /// Empty: an anonymous reader.
    pub reader: &'a str,
    /// Whether a moderator reads, who may read every room.
    pub moderator: bool,
}

/// The rejection of changes and data of messages while replicas of the release before may be running.
pub fn former_format() -> Error {
    let detail = "the log is being upgraded; changes and data of messages come with `confab-message finish-upgrade`";
    Error::new(Code::Unavailable, detail).retry_in(AFTER_UPGRADE)
}

impl Service {
    /// Returns a page of all events of a room, changes of messages included.
    ///
    /// # Errors
    /// `invalid_request` for a malformed id or a limit of 0 or above 200; `not_found` for a room that is not open or
    /// hidden from the reader; when the database fails.
    pub async fn read_events(
        &self,
        reading: Reading<'_>,
        window: Window,
        limit: u32,
        max_bytes: u32,
    ) -> Result<History> {
        let (room, readers) = self.reading(&reading)?;
        let limit = page_limit(at_least_one(limit)?, max_bytes)?;
        let (page, access) = self.store.read_events(room, window, limit, readers.clone()).await?;
        self.check_readable(&readers, &page, &access)?;
        Ok(History { more: has_more(window, &page), page, changed: Changed::default(), access })
    }

    /// Returns messages that were changed.
    ///
    /// # Errors
    /// As [`read_events`](Self::read_events).
    pub async fn changes(
        &self,
        reading: Reading<'_>,
        between: ChangedBetween,
        limit: u32,
        max_bytes: u32,
    ) -> Result<(Page, Changed)> {
        let (room, readers) = self.reading(&reading)?;
        let limit = page_limit(at_least_one(limit)?, max_bytes)?;
        let (page, changed, access) = self.store.changes(room, between, limit, readers.clone()).await?;
        self.check_readable(&readers, &page, &access)?;
        Ok((page, changed))
    }

    /// Returns the texts of a message.
    ///
    /// # Errors
    /// Those of [`read_events`](Self::read_events); `not_found` for an unknown message; `forbidden` for a reader who is
    /// neither the author nor an admin of the room.
    pub async fn versions(&self, reading: Reading<'_>, seq: u64) -> Result<Vec<Version>> {
        let (room, readers) = self.reading(&reading)?;
        let (versions, access) = self.store.versions(room, seq, readers.clone()).await?;
        self.check_access(&readers, &access)?;
        let author = versions.author.ok_or_else(|| Error::not_found("message"))?;
        let is_admin = reading.moderator || versions.role.is_some_and(|role| role >= Role::Admin);
        if !is_admin && !readers.users().contains(&author) {
            return Err(Error::new(
                Code::Forbidden,
                "only the author and the admins of the room may read the versions",
            ));
        }
        Ok(versions.versions)
    }

    /// Returns the pinned messages of a room.
    ///
    /// # Errors
    /// As [`read_events`](Self::read_events).
    pub async fn pins(&self, reading: Reading<'_>) -> Result<Page> {
        let (room, readers) = self.reading(&reading)?;
        let (page, access) = self.store.pins(room, readers.clone()).await?;
        self.check_readable(&readers, &page, &access)?;
        Ok(page)
    }

    pub(super) fn reading(&self, reading: &Reading<'_>) -> Result<(RoomKey, Readers)> {
        self.check_format()?;
        let room = text::id("roomId", reading.room)?;
        let readers = if reading.moderator {
            Readers::Moderator
        } else if reading.reader.is_empty() {
            Readers::Users(Vec::new())
        } else {
            Readers::Users(vec![text::id("reader", reading.reader)?])
        };
        Ok(((self.partition(room), room), readers))
    }
}

pub(super) fn at_least_one(limit: u32) -> Result<u32> {
    if limit == 0 { Err(Error::field("limit", "must be at least 1")) } else { Ok(limit) }
}

#[cfg(test)]
mod tests;

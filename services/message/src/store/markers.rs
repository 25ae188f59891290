//! The interface of a log's store for read markers and notifications of members.

use confab_common::{Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{Readers, RoomAccess, RoomKey};

/// Maximum rooms of a user in one answer. A user is a member of at most as many.
pub const MAX_MARKERS: u32 = 1000;

/// What a user wants to be notified of in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    #[default]
    All = 0,
    Mentions = 1,
    Nothing = 2,
}

impl TryFrom<i64> for Level {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            0 => Ok(Self::All),
            1 => Ok(Self::Mentions),
            2 => Ok(Self::Nothing),
            _ => Err(Error::internal(format_args!("no level has number {number}"))),
        }
    }
}

/// A level, and until when it holds, in milliseconds since the Unix epoch; [`Level::All`] holds after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    pub level: Level,
    pub until_ms: Option<i64>,
}

impl Notify {
    /// Returns what holds at a time.
    pub fn at(self, now_ms: i64) -> Self {
        if self.until_ms.is_some_and(|until| until <= now_ms) { Self::default() } else { self }
    }
}

/// The wish to move a read marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub room: RoomKey,
    pub user: Uuid,
    /// Cut to the room's head.
    pub seq: u64,
    /// How long ago the gateway received the mark, in milliseconds.
    pub age_ms: u32,
    /// Whether the marker also moves backwards: the user marks messages as unread.
    pub back: bool,
}

/// The marker that stands after a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub seq: u64,
    /// When the marker last moved, in milliseconds since the Unix epoch; `None` if it never did.
    pub at_ms: Option<i64>,
    pub unread: u64,
    /// Whether the mark moved the marker.
    pub moved: bool,
    /// Whether the room has few enough members for read receipts.
    pub has_receipts: bool,
    /// The messages that were unread before and are read now.
    pub passed: u64,
}

/// The read marker of a user in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub room: Uuid,
    pub seq: u64,
    pub unread: u64,
    /// The room's newest `seq`.
    pub head: u64,
    /// When the newest message or file was appended, in milliseconds since the Unix epoch; `None` if it has no ordinal.
    pub last_message_at_ms: Option<i64>,
    pub notify: Notify,
}

/// How far a member has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub user: Uuid,
    pub seq: u64,
    /// When the marker last moved, in milliseconds since the Unix epoch; `None` if it never did.
    pub at_ms: Option<i64>,
}

/// The read markers of the members of rooms.
pub trait MarkStore: Send + Sync {
    /// Moves markers, in one transaction. `few`: the most members of a room with read receipts. Returns one outcome for
    /// each mark; `None` if the user is not a member. A mark that a gateway received before the user marked messages as
    /// unread changes nothing. Safe to repeat.
    fn mark(&self, marks: Vec<Mark>, few: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<Option<Marked>>>>;

    /// Returns the markers of a user, at most [`MAX_MARKERS`]: in these rooms, or in all rooms of the user.
    fn markers(&self, user: Uuid, rooms: Option<Vec<RoomKey>>) -> BoxFuture<'_, Result<Vec<Marker>>>;

    /// Returns the markers of at most `most` members of a room, and the right of these readers in the same snapshot.
    fn receipts(&self, room: RoomKey, most: u32, readers: Readers)
    -> BoxFuture<'_, Result<(Vec<Receipt>, RoomAccess)>>;

    /// Sets the notifications of a user in a room; returns false if the user is not a member.
    fn set_notify(&self, room: RoomKey, user: Uuid, notify: Notify) -> BoxFuture<'_, Result<bool>>;
}

//! The visibility and the members of rooms, as the log has them.

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A member's role, in rising order. From `Admin` on, it permits to change messages of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

impl TryFrom<i64> for Role {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::Member),
            2 => Ok(Self::Admin),
            3 => Ok(Self::Owner),
            _ => Err(Error::internal(format_args!("no role has number {number}"))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub user: Uuid,
    pub role: Role,
}

/// A change of a room's visibility or members, stored with its event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessChange {
    /// These users become members, or members with another role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// These users are no longer members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Uuid>,
    /// Whether the room is private after the event.
    pub private: bool,
    /// Whether the event changed the visibility.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes_visibility: bool,
}

impl AccessChange {
    /// Returns a close upper bound on the encoded size, in bytes.
    pub fn size(&self) -> usize {
        CHANGE_OVERHEAD + MEMBER_SIZE * (self.members.len() + self.removed.len())
    }
}

/// Bytes of a change without its users, in JSON.
const CHANGE_OVERHEAD: usize = 100;
/// Bytes of a user with a role, in JSON.
const MEMBER_SIZE: usize = 80;

/// The readers of a page.
#[derive(Debug, Clone)]
pub enum Readers {
    /// These users; an anonymous reader if there are none.
    Users(Vec<Uuid>),
    /// A server key without a user, which may read every room.
    Moderator,
}

impl Readers {
    /// Returns whether the room may be read.
    pub fn may_read(&self, access: &RoomAccess) -> bool {
        matches!(self, Self::Moderator) || access.is_readable()
    }

    /// Returns the users.
    pub fn users(&self) -> &[Uuid] {
        match self {
            Self::Users(users) => users,
            Self::Moderator => &[],
        }
    }
}

impl From<Vec<Uuid>> for Readers {
    fn from(users: Vec<Uuid>) -> Self {
        Self::Users(users)
    }
}

/// A room as the log has it, with the readers of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomAccess {
    /// Whether the room was opened or has events.
    pub exists: bool,
    pub private: bool,
    /// In a private room: the readers who are members.
    pub readers: Vec<Uuid>,
}

impl RoomAccess {
    /// Whether a reader of the request may read the room.
    pub fn is_readable(&self) -> bool {
        !self.private || !self.readers.is_empty()
    }
}

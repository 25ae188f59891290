//! The rows of the store.

use confab_common::text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A user who performs an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: Uuid,
    pub username: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    /// The user who created the room, and was its first owner.
    pub creator: User,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// How often the room or its members were changed.
    pub revision: i64,
    /// Whether only members may see the room.
    pub private: bool,
}

impl Room {
    /// Returns the form of the name that must be unique among public rooms.
    pub fn folded_name(&self) -> String {
        text::fold(&self.name)
    }

    /// Returns the searchable text: name and description, separated so that no ordinary query matches across both.
    pub fn search(&self) -> String {
        searchable(&format!("{}\u{1f}{}", self.name, self.description))
    }

    /// Returns the room's position in the list.
    pub fn position(&self) -> Position {
        Position { created_at_ms: self.created_at_ms, id: self.id }
    }
}

/// Returns the form in which texts are searched.
pub fn searchable(text: &str) -> String {
    text::fold(text)
}

/// The role of a member. The numbers are those in the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

impl Role {
    pub fn number(self) -> i16 {
        self as i16
    }

    pub fn of(number: i16) -> Self {
        match number {
            3 => Self::Owner,
            2 => Self::Admin,
            _ => Self::Member,
        }
    }

    /// Returns whether the role may change or delete the room, and add or remove members.
    pub fn manages(self) -> bool {
        self >= Self::Admin
    }
}

/// A room, and the role of the user who reads it; `None` for an anonymous reader and for a user who is not a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub room: Room,
    pub role: Option<Role>,
}

impl Seen {
    /// Returns whether the reader may see the room.
    pub fn is_visible(&self) -> bool {
        !self.room.private || self.role.is_some()
    }
}

/// A room with its stored forms, which an earlier release may have computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub room: Room,
    /// The form of the name that must be unique.
    pub folded_name: String,
    /// The searchable text.
    pub search: String,
}

/// A position in the list of rooms, which is ordered by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub created_at_ms: i64,
    pub id: Uuid,
}

impl Position {
    /// Above every room.
    pub const TOP: Self = Self { created_at_ms: i64::MAX, id: Uuid::max() };
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user, with the name at the time of joining.
    pub user: User,
    pub role: Role,
    /// Milliseconds since the Unix epoch.
    pub joined_at_ms: i64,
}

impl Member {
    /// Returns the member's position in the list of the room's members.
    pub fn position(&self) -> MemberPosition {
        MemberPosition { role: self.role.number(), joined_at_ms: self.joined_at_ms, user: self.user.id }
    }
}

/// A position in the list of a room's members, which is ordered by role, highest first, and then by joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberPosition {
    pub role: i16,
    pub joined_at_ms: i64,
    pub user: Uuid,
}

impl MemberPosition {
    /// Before every member.
    pub const START: Self = Self { role: Role::Owner as i16 + 1, joined_at_ms: 0, user: Uuid::nil() };
}

/// A change of a room's members, written in one transaction with its event.
#[derive(Debug, Clone)]
pub struct MemberChange {
    /// Users who become members or get another role. A present member keeps its name and its time of joining.
    pub set: Vec<Member>,
    pub removed: Option<Uuid>,
    pub joins: Option<Joining>,
    pub event: RoomEvent,
}

/// The user in the `set` of a change who is not a member yet. The room counts against the user's maximum number of
/// rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joining {
    pub user: Uuid,
    /// The other user who adds the user; `None` if the user joins, or if a server key without a user adds the user.
    /// Such rooms may be at most half of the maximum.
    pub added_by: Option<Uuid>,
}

/// An event to append to the log: a row of the outbox, written in one transaction with the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    /// The event's id in the log; it makes a second append harmless.
    pub id: Uuid,
    pub room_id: Uuid,
    /// The room's revision that the event describes; events of a room are appended in this order.
    pub number: i64,
    pub sender: User,
    /// The public name of the event.
    pub event: String,
    /// A JSON object.
    pub data: String,
    /// Whether the event is the room's last.
    pub closes_room: bool,
    /// An [`AccessChange`](crate::event::AccessChange) as JSON.
    pub access: Option<String>,
}

/// An event in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub event: RoomEvent,
    /// Whether the room is deleted.
    pub room_gone: bool,
    /// Whether the log must open the room before it can append the event.
    pub unopened: bool,
}

/// A room that the log has not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Whether the room is private; `None` for a room that is deleted.
    pub private: Option<bool>,
    /// At most 1000 members.
    pub members: Vec<(Uuid, Role)>,
    /// Whether the room has further members.
    pub more: bool,
    /// The log's epoch in which the room must be opened again.
    pub epoch: Option<Uuid>,
}

/// A row of an opening: the room's privacy, the epoch, and a member.
pub type OpeningRow = (Option<bool>, Option<Uuid>, Option<(Uuid, Role)>);

impl Opening {
    /// Builds an opening from the first `limit` of its rows, with a member each; no rows mean that the room is open.
    pub fn of(rows: Vec<OpeningRow>, limit: u32) -> Option<Self> {
        let (private, epoch, _) = *rows.first()?;
        let more = rows.len() > limit as usize;
        let members = rows.into_iter().take(limit as usize).filter_map(|(_, _, member)| member).collect();
        Some(Self { private, members, more, epoch })
    }
}

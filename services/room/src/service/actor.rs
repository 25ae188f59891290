//! Who reads or changes a room.

use uuid::Uuid;

use crate::store::{Role, Seen, User};

/// The reader of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    Anonymous,
    User(Uuid),
    /// A server key without a user, which sees every room.
    Moderator,
}

impl Viewer {
    pub fn user(self) -> Option<Uuid> {
        match self {
            Self::User(user) => Some(user),
            Self::Anonymous | Self::Moderator => None,
        }
    }

    /// Returns whether the reader may see a room that was read with the role of the reader.
    pub fn sees(self, seen: &Seen) -> bool {
        self == Self::Moderator || seen.is_visible()
    }
}

/// The author of a change.
#[derive(Debug, Clone)]
pub struct Author {
    /// The user or, for a moderator, the id of the server key and the name `system`.
    pub user: User,
    /// Whether the author is a server key without a user, which has the rights of the owner in every room.
    pub is_moderator: bool,
}

impl Author {
    pub fn viewer(&self) -> Viewer {
        if self.is_moderator { Viewer::Moderator } else { Viewer::User(self.user.id) }
    }

    /// Returns who adds a user to a room by this change, if that is another user.
    pub fn adds(&self, user: Uuid) -> Option<Uuid> {
        Some(self.user.id).filter(|author| *author != user && !self.is_moderator)
    }

    /// Returns the role that decides about the change, from the author's own role.
    pub fn role(&self, own: Option<Role>) -> Option<Role> {
        if self.is_moderator { Some(Role::Owner) } else { own }
    }
}

//! The departure of a user whose account was deleted.

use std::time::Duration;

use confab_common::Result;
use tokio::time::Instant;
use uuid::Uuid;

use super::Rooms;
use crate::event;
use crate::store::{Member, MemberChange, Role, User};

/// Maximum rooms that one call leaves.
const ROOMS_PER_CALL: u32 = 50;
/// After this time, a call leaves no further room.
const TIME_LIMIT: Duration = Duration::from_secs(1);

impl Rooms {
    /// Removes a user from some rooms. A room that the user owns passes to the first of its other members, or is
    /// deleted. The events are in the outbox when the call returns. Returns whether the user is still in a room.
    pub async fn remove_user(&self, user: &User) -> Result<bool> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut rooms = self.store.rooms_of(user.id, ROOMS_PER_CALL + 1).await?;
        let more = rooms.len() > ROOMS_PER_CALL as usize;
        rooms.truncate(ROOMS_PER_CALL as usize);
        for room in rooms {
            while !self.depart(room, user).await? {
                if Instant::now() >= deadline {
                    return Ok(true);
                }
            }
            if Instant::now() >= deadline {
                // The next call finds out whether a room is left.
                return Ok(true);
            }
        }
        Ok(more)
    }

    /// Removes the user from a room. Returns `false` when another caller changed the room first.
    async fn depart(&self, room: Uuid, user: &User) -> Result<bool> {
        let Some((seen, Some(member))) = self.store.get_member(room, user.id, Some(user.id)).await? else {
            return Ok(true);
        };
        let mut room = seen.room;
        room.revision += 1;
        let heir = match member.role {
            Role::Owner => match self.store.first_other(room.id, user.id).await? {
                Some(heir) => Some(Member { role: Role::Owner, ..heir }),
                None => return self.store.delete(event::deleted(&room, user)?).await,
            },
            Role::Admin | Role::Member => None,
        };
        let event = event::left(&room, user, &member, heir.as_ref())?;
        let (set, removed) = (heir.into_iter().collect(), Some(user.id));
        self.store.change_members(MemberChange { set, removed, joins: None, event }).await
    }
}

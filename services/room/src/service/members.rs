//! The members of rooms.

use confab_common::clock::now_ms;
use confab_common::{Error, Result, cursor};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Author, EVENT_WAIT_LIMIT, Rooms, Viewer, overtaken, page_limit, rights, unknown};
use crate::event;
use crate::store::{Joining, Member, MemberChange, MemberPosition, Role, Seen, SeenWithMember, User};

/// A page of the list of members.
pub struct MemberPage {
    pub members: Vec<Member>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl Rooms {
    /// Lists a room's members: the owner, the admins, then the others, each in the order in which they joined.
    pub async fn list_members(&self, room: Uuid, viewer: Viewer, limit: u32, page: &str) -> Result<MemberPage> {
        let limit = page_limit(limit)?;
        let after = match page {
            "" => MemberPosition::START,
            page => match cursor::decode::<(Uuid, i16, i64, Uuid)>(page)? {
                (of, role, joined_at_ms, user) if of == room => MemberPosition { role, joined_at_ms, user },
                _ => return Err(Error::field("cursor", "belongs to another room")),
            },
        };
        self.get(room, viewer).await?;
        let mut members = self.store.members(room, after, limit + 1).await?;
        let more = members.len() > limit as usize;
        members.truncate(limit as usize);
        let last = members.last().filter(|_| more).map(Member::position);
        let next = last.map(|at| cursor::encode(&(room, at.role, at.joined_at_ms, at.user)));
        Ok(MemberPage { members, next })
    }

    /// Adds a member or changes a member's role, and returns after the event is in the log. Returns the member, and
    /// whether the user was not a member before. A request that changes nothing still waits for earlier events.
    pub async fn set_member(
        &self,
        room: Uuid,
        author: &Author,
        user: Option<User>,
        wanted: Option<Role>,
    ) -> Result<(Member, bool)> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        let (number, member, created) = loop {
            let (seen, present) = self.get_member(room, author, user.as_ref().map(|user| user.id)).await?;
            let had = present.as_ref().map(|member| member.role);
            let is_caller = user.as_ref().is_some_and(|user| user.id == author.user.id);
            let role = if author.is_moderator {
                rights::role_by_moderator(had, wanted)?
            } else {
                rights::role_to_give(seen.role, is_caller, had, wanted)?
            };
            let user = user.clone().ok_or_else(|| Error::not_found("user"))?;
            let created = present.is_none();
            let number = seen.room.revision;
            let member = match (role, present) {
                (None, Some(member)) => break (number, member, false),
                (Some(role), Some(member)) => Member { role, ..member },
                (role, None) => Member { user, role: role.unwrap_or(Role::Member), joined_at_ms: now_ms() },
            };
            self.require_members_in_log().await?;
            // If the user becomes the owner, the present owner becomes an admin.
            let former = if member.role == Role::Owner { Some(self.owner(room).await?) } else { None };
            let change = addition(seen, author, &member, former, created)?;
            if self.store.change_members(change).await? {
                break (number + 1, member, created);
            }
            overtaken(deadline)?;
        };
        self.wait_for_log(room, number, deadline).await?;
        Ok((member, created))
    }

    /// Removes a member, and returns after the event is in the log. Without `user`, the id is malformed. A repeat of the
    /// same operation waits for the event of the first attempt.
    pub async fn remove_member(
        &self,
        room: Uuid,
        author: &Author,
        user: Option<Uuid>,
        operation: Option<Uuid>,
    ) -> Result<()> {
        let deadline = Instant::now() + EVENT_WAIT_LIMIT;
        match self.try_to_remove(room, author, user, operation, deadline).await {
            Err(error) if self.was_done(&error, operation, user.unwrap_or_default()).await? => {
                // A deleted room has no members, and no event that could follow.
                let Some(seen) = self.store.get(room, None).await? else { return Ok(()) };
                self.wait_for_log(room, seen.room.revision, deadline).await
            }
            removed => self.wait_for_log(room, removed?, deadline).await,
        }
    }

    /// Removes a member. Returns the number of the event.
    async fn try_to_remove(
        &self,
        room: Uuid,
        author: &Author,
        user: Option<Uuid>,
        operation: Option<Uuid>,
        deadline: Instant,
    ) -> Result<i64> {
        loop {
            let (seen, present) = self.get_member(room, author, user).await?;
            let had = present.as_ref().map(|member| member.role);
            rights::may_remove(author.role(seen.role), user == Some(author.user.id), had)?;
            let member = present.ok_or_else(|| Error::not_found("member"))?;
            self.require_members_in_log().await?;
            self.store.operations().begin(operation, member.user.id).await?;
            let mut room = seen.room;
            room.revision += 1;
            let event = event::left(&room, &author.user, &member, None)?;
            let removed = Some(member.user.id);
            if self.store.change_members(MemberChange { set: Vec::new(), removed, joins: None, event }).await? {
                return Ok(room.revision);
            }
            overtaken(deadline)?;
        }
    }

    /// Returns a room that the author may see, and a user's membership.
    async fn get_member(&self, room: Uuid, author: &Author, user: Option<Uuid>) -> Result<SeenWithMember> {
        let found = self.store.get_member(room, author.user.id, user).await?;
        found.filter(|(seen, _)| author.viewer().sees(seen)).ok_or_else(unknown)
    }

    /// Returns the owner of a room. The owner may be newer than the room that was read before; then the room's revision
    /// is newer, too, so that a change based on both fails.
    pub(super) async fn owner(&self, room: Uuid) -> Result<Member> {
        let first = self.store.members(room, MemberPosition::START, 1).await?.into_iter().next();
        first.filter(|member| member.role == Role::Owner).ok_or_else(unknown)
    }
}

/// Returns the change that gives a user a role. `former` is the present owner, if the user becomes the owner.
fn addition(
    seen: Seen,
    author: &Author,
    member: &Member,
    former: Option<Member>,
    created: bool,
) -> Result<MemberChange> {
    let mut room = seen.room;
    room.revision += 1;
    let others = former.map(|owner| Member { role: Role::Admin, ..owner }).into_iter().collect::<Vec<_>>();
    let set = [std::slice::from_ref(member), &others].concat();
    let event = if created {
        event::joined(&room, &author.user, member, &others)?
    } else {
        event::roles_changed(&room, &author.user, &set)?
    };
    let joining = Joining { user: member.user.id, added_by: author.adds(member.user.id) };
    Ok(MemberChange { set, removed: None, joins: created.then_some(joining), event })
}

//! The events of rooms: their data, which clients receive, and their changes of visibility and members, which the log
//! applies. Each function takes the room in its state after the event.

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Member, Role, Room, RoomEvent, User};

/// A change of a room's visibility or members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessChange {
    /// Users who become members or get another role.
    pub members: Vec<RoleOf>,
    /// Users who are no longer members.
    pub removed: Vec<Uuid>,
    /// Whether the room is private after the event.
    pub private: bool,
    pub changes_visibility: bool,
}

/// A user and the user's role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleOf {
    pub user_id: Uuid,
    pub role: Role,
}

/// The data of `roomUpdated`: the new values.
#[derive(Serialize)]
struct Updated<'a> {
    name: &'a str,
    description: &'a str,
    visibility: &'static str,
    /// The members whose roles changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<WithRole<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a User>,
}

#[derive(Serialize)]
struct WithRole<'a> {
    user: &'a User,
    role: Role,
}

/// The data of `memberJoined` and `memberLeft`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Membership<'a> {
    user: &'a User,
    role: Role,
    by: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_owner: Option<&'a User>,
}

/// The name or the description changed.
pub fn updated(room: &Room, sender: &User) -> Result<RoomEvent> {
    event(room, sender, "roomUpdated", &values(room), None)
}

/// The visibility changed, and perhaps the name or the description too. The event names the owner as a member, because
/// the log knows no members of a room that was in use before the log had members.
pub fn visibility_changed(room: &Room, sender: &User, owner: Uuid) -> Result<RoomEvent> {
    let members = vec![RoleOf { user_id: owner, role: Role::Owner }];
    let access = AccessChange { members, removed: Vec::new(), private: room.private, changes_visibility: true };
    event(room, sender, "roomUpdated", &values(room), Some(access))
}

/// These members have other roles.
pub fn roles_changed(room: &Room, sender: &User, members: &[Member]) -> Result<RoomEvent> {
    let shown = members.iter().map(|member| WithRole { user: &member.user, role: member.role }).collect();
    let data = Updated { members: Some(shown), by: Some(sender), ..values(room) };
    event(room, sender, "roomUpdated", &data, Some(access(room, members)))
}

/// A user became a member. `others` have other roles.
pub fn joined(room: &Room, sender: &User, member: &Member, others: &[Member]) -> Result<RoomEvent> {
    let data = Membership { user: &member.user, role: member.role, by: sender, new_owner: None };
    let members = [std::slice::from_ref(member), others].concat();
    event(room, sender, "memberJoined", &data, Some(access(room, &members)))
}

/// A user is no longer a member. If the user was the owner, the room passes to the heir.
pub fn left(room: &Room, sender: &User, member: &Member, heir: Option<&Member>) -> Result<RoomEvent> {
    let new_owner = heir.map(|heir| &heir.user);
    let data = Membership { user: &member.user, role: member.role, by: sender, new_owner };
    let access = AccessChange { removed: vec![member.user.id], ..access(room, heir.map_or(&[], std::slice::from_ref)) };
    event(room, sender, "memberLeft", &data, Some(access))
}

/// The room was deleted.
pub fn deleted(room: &Room, sender: &User) -> Result<RoomEvent> {
    let event = event(room, sender, "roomDeleted", &serde_json::Map::new(), None)?;
    Ok(RoomEvent { closes_room: true, ..event })
}

fn values(room: &Room) -> Updated<'_> {
    let visibility = if room.private { "private" } else { "public" };
    Updated { name: &room.name, description: &room.description, visibility, members: None, by: None }
}

fn access(room: &Room, members: &[Member]) -> AccessChange {
    let members = members.iter().map(|member| RoleOf { user_id: member.user.id, role: member.role }).collect();
    AccessChange { members, removed: Vec::new(), private: room.private, changes_visibility: false }
}

fn event(
    room: &Room,
    sender: &User,
    name: &str,
    data: &impl Serialize,
    access: Option<AccessChange>,
) -> Result<RoomEvent> {
    let access = access.map(|access| serde_json::to_string(&access)).transpose().map_err(Error::internal)?;
    Ok(RoomEvent {
        id: Uuid::now_v7(),
        room_id: room.id,
        number: room.revision,
        sender: sender.clone(),
        event: name.into(),
        data: serde_json::to_string(data).map_err(Error::internal)?,
        closes_room: false,
        access,
    })
}

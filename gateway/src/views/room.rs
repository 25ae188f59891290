//! Rooms.

use confab_common::Error;
use confab_proto::message::v1::Marker;
use confab_proto::room::v1::{Member, Role, Room, Visibility};
use serde::Serialize;
use utoipa::ToSchema;

use super::history::History;
use super::message::MessageJson;
use super::page::Time;
use super::unread::NotifyJson;
use super::user::UserJson;

/// A room.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Room)]
pub struct RoomJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    name: &'a str,
    description: &'a str,
    visibility: VisibilityJson,
    /// The caller's role; null if the caller is not a member.
    #[schema(required)]
    role: Option<RoleJson>,
    /// What the caller may do in the room; empty for an anonymous caller. A server key without a user may invite and
    /// manage.
    #[schema(value_type = Vec<ActJson>)]
    can: &'static [ActJson],
    #[schema(required)]
    created_by: Option<UserJson<'a>>,
    created_at: Time,
    /// The `seq` of the room's newest event, changes of messages included; 0 while the room has no events.
    last_seq: u64,
    /// The `seq` up to which the caller has read; only present for members.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    read_seq: Option<u64>,
    /// The caller's unread messages; only present together with `readSeq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unread: Option<u64>,
    /// What the caller wants to be notified of; only present together with `readSeq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    notify: Option<NotifyJson>,
}

/// `public`: all users may read and post. `private`: only members may see the room, read and post.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Visibility)]
pub enum VisibilityJson {
    Public,
    Private,
}

/// The role of a member. Members may read and post. Owners and admins may also change and delete the room, and add and
/// remove members. Only the owner may change the visibility. A room has exactly one owner.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Role)]
pub enum RoleJson {
    Owner,
    Admin,
    Member,
}

impl RoleJson {
    fn of(role: Role) -> Option<Self> {
        match role {
            Role::Owner => Some(Self::Owner),
            Role::Admin => Some(Self::Admin),
            Role::Member => Some(Self::Member),
            Role::Unspecified => None,
        }
    }
}

/// `post`: send messages and share files. `edit`: edit and delete one's own messages. `delete`: delete messages and
/// files of other users. `invite`: add members. `manage`: change and delete the room, change roles, remove members.
/// `pin`: pin messages.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Act)]
enum ActJson {
    Post,
    Edit,
    Delete,
    Invite,
    Manage,
    Pin,
}

impl ActJson {
    /// What a caller may do who sees the room and has this role.
    fn of(role: Option<RoleJson>, viewer: Viewer) -> &'static [Self] {
        match (role, viewer) {
            (Some(RoleJson::Owner | RoleJson::Admin), _) => {
                &[Self::Post, Self::Edit, Self::Delete, Self::Invite, Self::Manage, Self::Pin]
            }
            (_, Viewer::User) => &[Self::Post, Self::Edit],
            (_, Viewer::Moderator) => &[Self::Invite, Self::Manage],
            (_, Viewer::Anonymous) => &[],
        }
    }
}

/// The kind of caller that sees a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    Anonymous,
    User,
    /// A server key without a user.
    Moderator,
}

impl<'a> RoomJson<'a> {
    /// A room with the newest `seq` of its log, for a caller who may read it.
    pub fn new(room: &'a Room, last_seq: u64, viewer: Viewer) -> Self {
        let role = RoleJson::of(room.role());
        Self {
            id: &room.id,
            name: &room.name,
            description: &room.description,
            visibility: match room.visibility() {
                Visibility::Private => VisibilityJson::Private,
                Visibility::Public | Visibility::Unspecified => VisibilityJson::Public,
            },
            role,
            can: ActJson::of(role, viewer),
            created_by: room.created_by.as_ref().map(UserJson::from),
            created_at: Time(room.created_at_ms),
            last_seq,
            read_seq: None,
            unread: None,
            notify: None,
        }
    }

    /// Adds the caller's marker, if the caller is a member.
    pub fn with_marker(self, marker: Option<&Marker>) -> Self {
        let (read_seq, unread) = (marker.map(|marker| marker.read_seq), marker.map(|marker| marker.unread));
        Self { read_seq, unread, notify: marker.map(NotifyJson::from), ..self }
    }
}

/// A room with its latest messages.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomWithMessages)]
pub struct Details<'a> {
    #[serde(flatten)]
    pub room: RoomJson<'a>,
    pub messages: History<MessageJson<'a>>,
}

/// A member of a room.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Member)]
pub struct MemberJson<'a> {
    user: UserJson<'a>,
    role: RoleJson,
    /// When the user became a member.
    joined_at: Time,
}

impl<'a> TryFrom<&'a Member> for MemberJson<'a> {
    type Error = Error;

    fn try_from(member: &'a Member) -> Result<Self, Error> {
        let parts = member.user.as_ref().zip(RoleJson::of(member.role()));
        let (user, role) = parts.ok_or_else(|| Error::internal("a member without a user or a role"))?;
        Ok(Self { user: user.into(), role, joined_at: Time(member.joined_at_ms) })
    }
}

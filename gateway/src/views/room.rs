//! Rooms.

use confab_proto::room::v1::{Role, Room, Visibility};
use serde::Serialize;
use utoipa::ToSchema;

use super::message::MessageJson;
use super::page::{Page, Time};
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
    #[schema(required)]
    created_by: Option<UserJson<'a>>,
    created_at: Time,
    /// The `seq` of the room's newest message; 0 while the room has no messages.
    last_seq: u64,
}

/// `public`: all users may read and post. `private`: only members.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Visibility)]
enum VisibilityJson {
    Public,
    Private,
}

/// The role of a member. Owners and admins may change and delete the room; members may read and post.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Role)]
enum RoleJson {
    Owner,
    Admin,
    Member,
}

impl<'a> RoomJson<'a> {
    /// A room with the newest `seq` of its log.
    pub fn new(room: &'a Room, last_seq: u64) -> Self {
        Self {
            id: &room.id,
            name: &room.name,
            description: &room.description,
            visibility: match room.visibility() {
                Visibility::Private => VisibilityJson::Private,
                Visibility::Public | Visibility::Unspecified => VisibilityJson::Public,
            },
            role: match room.role() {
                Role::Owner => Some(RoleJson::Owner),
                Role::Admin => Some(RoleJson::Admin),
                Role::Member => Some(RoleJson::Member),
                Role::Unspecified => None,
            },
            created_by: room.created_by.as_ref().map(UserJson::from),
            created_at: Time(room.created_at_ms),
            last_seq,
        }
    }
}

/// A room with its latest messages.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomWithMessages)]
pub struct Details<'a> {
    #[serde(flatten)]
    pub room: RoomJson<'a>,
    pub messages: Page<MessageJson<'a>>,
}

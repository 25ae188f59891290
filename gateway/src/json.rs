//! The public JSON of what services return. REST and Socket.IO return the same objects.

use std::fmt;

use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::File;
use confab_proto::message::v1::{Event, Kind};
use confab_proto::room::v1::{Role, Room, Visibility};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A user as other objects refer to one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    pub id: &'a str,
    /// As the user wrote it.
    pub username: &'a str,
}

impl<'a> From<&'a UserRef> for UserJson<'a> {
    fn from(user: &'a UserRef) -> Self {
        Self { id: &user.id, username: &user.username }
    }
}

/// What stands in a room's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
pub struct MessageJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    #[schema(format = "uuid")]
    room_id: &'a str,
    /// 1, 2, 3 … in each room, without a hole.
    #[schema(minimum = 1)]
    seq: u64,
    r#type: TypeJson,
    #[schema(required)]
    sender: Option<UserJson<'a>>,
    content: &'a str,
    #[schema(value_type = Vec<FileJson>)]
    files: Files<'a>,
    /// The sender's own name for it.
    #[schema(required)]
    client_message_id: Option<&'a str>,
    created_at: Time,
    /// The name of a room event; only of type `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    event: Option<&'a str>,
    /// What the room event tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    data: Option<&'a RawValue>,
}

/// Said by somebody, a file that was shared, or an event of the room.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessageType)]
enum TypeJson {
    Message,
    File,
    System,
}

impl<'a> From<&'a Event> for MessageJson<'a> {
    fn from(event: &'a Event) -> Self {
        let system = event.kind() == Kind::System;
        Self {
            id: &event.id,
            room_id: &event.room_id,
            seq: event.seq,
            r#type: match event.kind() {
                Kind::System => TypeJson::System,
                Kind::File => TypeJson::File,
                Kind::Message | Kind::Unspecified => TypeJson::Message,
            },
            sender: event.sender.as_ref().map(UserJson::from),
            content: &event.content,
            files: Files(&event.files),
            client_message_id: event.client_message_id.as_deref(),
            created_at: Time(event.created_at_ms),
            event: system.then_some(&event.event),
            data: system.then(|| serde_json::from_str(&event.data).ok()).flatten(),
        }
    }
}

/// The answer to a repeat: what the first request made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Repeated<T> {
    #[serde(flatten)]
    first: T,
    /// `true`: it is not of this request, whose content may differ.
    duplicate: bool,
}

impl<T> From<T> for Repeated<T> {
    fn from(first: T) -> Self {
        Self { first, duplicate: true }
    }
}

/// The files of a message.
#[derive(Debug, Clone)]
struct Files<'a>(&'a [File]);

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(FileJson::from))
    }
}

/// A file of a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MessageFile)]
pub enum FileJson<'a> {
    /// One that can be had.
    Present(PresentFile<'a>),
    /// One that messages still name.
    Deleted(DeletedFile<'a>),
}

/// A file that can be had.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = File)]
pub struct PresentFile<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// The last path component of the given name, without control characters, in at most 255 bytes.
    name: &'a str,
    /// Bytes.
    size: u64,
    /// As far as it is known.
    content_type: &'a str,
    /// Lower-case hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: &'a str,
    url: FileUrl<'a>,
    /// The room it belongs to.
    #[schema(format = "uuid", required)]
    room_id: Option<&'a str>,
    #[schema(required)]
    uploaded_by: Option<UserJson<'a>>,
    created_at: Time,
}

/// A file that is no more.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeletedFile<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// What it was called.
    name: &'a str,
    /// True.
    deleted: bool,
}

impl<'a> From<&'a File> for FileJson<'a> {
    fn from(file: &'a File) -> Self {
        match file.deleted {
            true => Self::Deleted(DeletedFile { id: &file.id, name: &file.name, deleted: true }),
            false => Self::Present(PresentFile {
                id: &file.id,
                name: &file.name,
                size: file.size,
                content_type: &file.content_type,
                sha256: &file.sha256,
                url: FileUrl(&file.id),
                room_id: file.room_id.as_deref(),
                uploaded_by: file.uploaded_by.as_ref().map(UserJson::from),
                created_at: Time(file.created_at_ms),
            }),
        }
    }
}

/// Where a file's bytes are, relative to this server.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = String, format = "uri-reference")]
pub struct FileUrl<'a>(pub &'a str);

impl fmt::Display for FileUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/api/files/{}", self.0)
    }
}

impl Serialize for FileUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

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
    /// The caller's; null for who is no member.
    #[schema(required)]
    role: Option<RoleJson>,
    #[schema(required)]
    created_by: Option<UserJson<'a>>,
    created_at: Time,
    /// The `seq` of its newest message; 0 while there is none.
    last_seq: u64,
}

/// Who may see a room.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Visibility)]
enum VisibilityJson {
    Public,
    Private,
}

/// What a member may do.
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

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// What it holds.
    pub items: Vec<T>,
    /// Where the list goes on; nothing at its end.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// RFC 3339, UTC, with milliseconds.
// Held as milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = String, format = "date-time", pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        let time = Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        serializer.serialize_str(&PRINTER.timestamp_to_string(&time))
    }
}

#[cfg(test)]
mod tests;

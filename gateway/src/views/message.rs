//! Messages.

use confab_proto::file::v1::File;
use confab_proto::message::v1::{Event, Kind};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::file::FileJson;
use super::page::Time;
use super::user::UserJson;

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

/// Text from a user, a file that was shared, or an event of the room.
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

//! Messages.

use std::sync::LazyLock;

use confab_proto::file::v1::File;
use confab_proto::message::v1::{Event, Kind};
use serde::{Serialize, Serializer};
use serde_json::Map;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::file::FileJson;
use super::page::Time;
use super::reaction::{ReactionJson, reactions};
use super::user::UserJson;

/// A message in its present state, or a room event, as an entry of the room's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
pub struct MessageJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    #[schema(format = "uuid")]
    room_id: &'a str,
    /// Number of the entry in its room: 1, 2, 3 … without gaps.
    #[schema(minimum = 1)]
    seq: u64,
    r#type: TypeJson,
    #[schema(required)]
    sender: Option<UserJson<'a>>,
    content: &'a str,
    #[schema(value_type = Vec<FileJson>)]
    files: Files<'a>,
    /// The id that the sender chose for the message; null if the sender chose none.
    #[schema(required)]
    client_message_id: Option<&'a str>,
    created_at: Time,
    /// Number of the message among the room's messages of type `message` and `file`: 1, 2, 3 …, deleted ones included.
    /// Null for a room event, and for a message that is older than ordinals.
    #[schema(required, minimum = 1)]
    ordinal: Option<u64>,
    /// The `seq` of the message's last change; its own `seq` if it was never changed.
    #[schema(minimum = 1)]
    revision: u64,
    /// When the text was last edited; null if it never was.
    #[schema(required)]
    edited_at: Option<Time>,
    /// Whether the message is deleted. A deleted message has no text and no files.
    deleted: bool,
    /// The user who deleted the message. A server key without a user has its id and the name `system`.
    #[schema(required)]
    deleted_by: Option<UserJson<'a>>,
    /// Whether the message is pinned.
    pinned: bool,
    /// At most 20, in the order of the first reaction with each name; none to a deleted message.
    #[schema(max_items = 20)]
    reactions: Vec<ReactionJson<'a>>,
    /// The name of the room event; only present with type `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    event: Option<&'a str>,
    /// With type `message`, data of the app, `{}` without; with type `file`, always `{}`; with type `system`, details of
    /// the room event.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

/// `message`: a text from a user. `file`: a file that a user shared. `system`: an event of the room.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessageType)]
enum TypeJson {
    Message,
    File,
    System,
}

/// The data of a message or a room event that has none.
static NO_DATA: LazyLock<Box<RawValue>> = LazyLock::new(|| serde_json::value::to_raw_value(&Map::new()).expect("JSON"));

fn data(text: &str) -> &RawValue {
    if text.is_empty() { &NO_DATA } else { serde_json::from_str(text).unwrap_or(&NO_DATA) }
}

impl<'a> From<&'a Event> for MessageJson<'a> {
    fn from(event: &'a Event) -> Self {
        let system = event.kind() == Kind::System;
        let state = event.state.as_ref();
        let deleted_by = state.and_then(|state| state.deleted_by.as_ref()).map(UserJson::from);
        Self {
            id: &event.id,
            room_id: &event.room_id,
            seq: event.seq,
            r#type: match event.kind() {
                Kind::System => TypeJson::System,
                Kind::File => TypeJson::File,
                Kind::Message | Kind::Change | Kind::Unspecified => TypeJson::Message,
            },
            sender: event.sender.as_ref().map(UserJson::from),
            content: &event.content,
            files: Files(&event.files),
            client_message_id: event.client_message_id.as_deref(),
            created_at: Time(event.created_at_ms),
            ordinal: event.ordinal,
            revision: state.map_or(event.seq, |state| state.revision),
            edited_at: state.and_then(|state| state.edited_at_ms).map(Time),
            deleted: deleted_by.is_some(),
            deleted_by,
            pinned: state.is_some_and(|state| state.pinned),
            reactions: reactions(event),
            data: data(if system { &event.data } else { &event.message_data }),
            event: system.then_some(&event.event),
        }
    }
}

/// The response to a repeated request: the result of the first request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Repeated<T> {
    #[serde(flatten)]
    first: T,
    /// Always `true`: this object was created by an earlier request, whose content may differ from this request.
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

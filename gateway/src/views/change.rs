//! Changes of messages.

use confab_proto::message::v1::{Change, Event, Kind, ListVersionsResponse, Op, Version};
use serde::Serialize;
use utoipa::ToSchema;

use super::message::MessageJson;
use super::page::Time;
use super::reaction::{ReactionChangeJson, reaction_changes};
use super::user::UserJson;

/// `edit`: a new text. `delete`: the message is deleted. `pin` and `unpin`: the message is pinned, or no longer pinned.
/// `react`: reactions are set or ended.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Op)]
pub enum OpJson {
    Edit,
    Delete,
    Pin,
    Unpin,
    React,
}

impl From<Op> for OpJson {
    fn from(op: Op) -> Self {
        match op {
            Op::Delete => Self::Delete,
            Op::Pin => Self::Pin,
            Op::Unpin => Self::Unpin,
            Op::React => Self::React,
            Op::Edit | Op::Unspecified => Self::Edit,
        }
    }
}

/// A change of a message, as clients in its room receive it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedJson<'a> {
    room_id: &'a str,
    seq: u64,
    target: u64,
    op: OpJson,
    by: Option<UserJson<'a>>,
    at: Time,
    message: Option<MessageJson<'a>>,
}

impl<'a> ChangedJson<'a> {
    pub fn new(event: &'a Event, change: &'a Change) -> Self {
        Self {
            room_id: &event.room_id,
            seq: event.seq,
            target: change.target,
            op: change.op().into(),
            by: event.sender.as_ref().map(UserJson::from),
            at: Time(event.created_at_ms),
            message: change.message.as_deref().map(MessageJson::from),
        }
    }
}

/// A change of a message, as an entry of the room's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Change)]
pub struct ChangeJson<'a> {
    /// Number of the entry in its room.
    #[schema(minimum = 2)]
    seq: u64,
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    r#type: ChangeTypeJson,
    op: OpJson,
    /// The `seq` of the message.
    #[schema(minimum = 1)]
    target: u64,
    /// The user who made the change; with op `react` the first of the users. A server key without a user has its id and the name `system`.
    #[schema(required)]
    sender: Option<UserJson<'a>>,
    created_at: Time,
    /// The reactions that were set or ended; only present with op `react`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    changes: Vec<ReactionChangeJson<'a>>,
}

/// `change`: a change of a message.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ChangeType)]
enum ChangeTypeJson {
    Change,
}

/// An entry of a room's log. Changes of messages are entries only with `events=true`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Item)]
pub enum ItemJson<'a> {
    Message(MessageJson<'a>),
    Change(ChangeJson<'a>),
}

impl<'a> From<&'a Event> for ItemJson<'a> {
    fn from(event: &'a Event) -> Self {
        match &event.change {
            Some(change) if event.kind() == Kind::Change => Self::Change(ChangeJson {
                seq: event.seq,
                id: &event.id,
                r#type: ChangeTypeJson::Change,
                op: change.op().into(),
                target: change.target,
                sender: event.sender.as_ref().map(UserJson::from),
                created_at: Time(event.created_at_ms),
                changes: reaction_changes(change),
            }),
            _ => Self::Message(event.into()),
        }
    }
}

/// The versions of a message's text.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Versions<'a> {
    /// In rising `revision`, the newest 200; empty after the deletion of the message.
    items: Vec<VersionJson<'a>>,
}

/// A version of a message's text.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Version)]
struct VersionJson<'a> {
    /// The `seq` of the message, or of the edit.
    #[schema(minimum = 1)]
    revision: u64,
    content: &'a str,
    /// When this version was written.
    at: Time,
    /// The user who wrote it.
    #[schema(required)]
    by: Option<UserJson<'a>>,
}

impl<'a> From<&'a ListVersionsResponse> for Versions<'a> {
    fn from(list: &'a ListVersionsResponse) -> Self {
        let item = |version: &'a Version| VersionJson {
            revision: version.revision,
            content: &version.content,
            at: Time(version.at_ms),
            by: version.by.as_ref().map(UserJson::from),
        };
        Self { items: list.versions.iter().map(item).collect() }
    }
}

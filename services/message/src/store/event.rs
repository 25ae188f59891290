//! Events, before they are appended and in the log.

use std::sync::Arc;

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FORMAT;
use super::access::AccessChange;
use super::change::{Change, Op, State};
use super::reactions::{Reacted, Reaction};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A user's message.
    Message = 1,
    /// A shared file.
    File = 2,
    /// A change of the room.
    System = 3,
    /// A change of a message.
    Change = 4,
}

impl Kind {
    /// Whether events of this kind count as unread.
    pub fn is_countable(self) -> bool {
        matches!(self, Self::Message | Self::File)
    }
}

impl TryFrom<i64> for Kind {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::Message),
            2 => Ok(Self::File),
            3 => Ok(Self::System),
            4 => Ok(Self::Change),
            _ => Err(Error::internal(format_args!("no kind of event has number {number}"))),
        }
    }
}

/// The content of an event, stored as one JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The sender's name at that time.
    pub sender_username: String,
    /// The text of the message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// [`Kind::System`]: the name of the room event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// [`Kind::System`]: a JSON object with its details. [`Kind::Message`]: the app's data, a JSON object as it was sent;
    /// empty without data. [`Op::Edit`]: the new data; empty if the data stays.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// [`Kind::System`]: the change of the room's visibility or members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessChange>,
    /// The shared or attached files, as they were at that time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// [`Op::React`]: before the append, the one reaction to set or to end; in the log, all that were appended together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reacted: Vec<Reacted>,
    /// [`Op::React`], in the log: all reactions to the message after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub id: Uuid,
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// A media type.
    pub content_type: String,
    /// The SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
    /// The user who uploaded the file.
    pub uploader: Uuid,
    /// The uploader's name at that time.
    pub uploader_username: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Whether a browser may show the file inline.
    pub safe_inline: bool,
    /// Whether the file was deleted since. Not stored with the event:
    /// [`Store::forget_files`](super::Store::forget_files) covers all events.
    #[serde(skip)]
    pub deleted: bool,
}

impl Body {
    /// Removes what a deleted message no longer has.
    fn clear(&mut self) {
        self.content.clear();
        self.data.clear();
        self.files.clear();
    }

    pub(super) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    pub(super) fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(Error::internal)
    }
}

/// The data of an event, which has no numbers yet. Its identity is (partition, room, sender, client id): the log
/// contains each identity at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventData {
    /// The partition of the room.
    pub partition: u32,
    pub room: Uuid,
    /// Created by the caller before its first attempt.
    pub id: Uuid,
    pub kind: Kind,
    pub sender: Uuid,
    /// See [`client_id`].
    pub client_id: String,
    pub body: Body,
    /// [`Kind::Change`]: what the event changes.
    pub change: Option<Change>,
    /// Whether the event closes the room. Not stored with the event.
    pub closes_room: bool,
}

/// Returns an event's client id: the id that the client chose, or the event's own id in a separate namespace.
pub fn client_id(client_message_id: Option<&str>, id: Uuid) -> String {
    match client_message_id {
        Some(chosen) => format!("c:{chosen}"),
        None => format!("i:{id}"),
    }
}

impl EventData {
    /// Returns the `clientMessageId`, if the client chose one.
    pub fn client_message_id(&self) -> Option<&str> {
        self.client_id.strip_prefix("c:")
    }

    /// Returns the first format of the log that may contain the event.
    pub fn first_format(&self) -> u32 {
        let has_app_data = self.kind != Kind::System && !self.body.data.is_empty();
        let of_change = self.change.map_or(0, |change| change.op.first_format());
        if has_app_data { FORMAT } else { of_change }
    }

    /// Returns a close upper bound on the encoded size, in bytes.
    pub fn size(&self) -> usize {
        let body = &self.body;
        let texts =
            self.client_id.len() + body.sender_username.len() + body.content.len() + body.event.len() + body.data.len();
        let access = body.access.as_ref().map_or(0, AccessChange::size);
        let reacted = body.reacted.iter().map(Reacted::size).sum::<usize>();
        let reactions = body.reactions.iter().map(Reaction::size).sum::<usize>();
        EVENT_OVERHEAD + texts + access + reacted + reactions + body.files.iter().map(File::encoded_size).sum::<usize>()
    }
}

impl File {
    fn encoded_size(&self) -> usize {
        FILE_OVERHEAD + self.name.len() + self.content_type.len() + self.sha256.len() + self.uploader_username.len()
    }
}

/// Maximum bytes of an encoded event in addition to its body and client id.
pub const EVENT_OVERHEAD: usize = 200;
/// Maximum bytes of an encoded file in addition to its texts; less than the field names take in the body's JSON.
const FILE_OVERHEAD: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The appended data; shared, because both the caller and the bus receive it.
    pub data: Arc<EventData>,
    /// 1, 2, 3 … within the partition.
    pub position: u64,
    /// 1, 2, 3 … within the room.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// The number of countable messages of the room up to this one; `None` for an event that does not count, and for
    /// one of a release without ordinals.
    pub ordinal: Option<u64>,
    /// Of a message: what changes have made of it. Then `data` has the present text and files.
    pub state: Option<Box<State>>,
    /// [`Kind::Change`]: the message, in a state at or after the change.
    pub message: Option<Arc<Event>>,
    /// Only in the answer to a reaction: all names with which its sender reacts to the message.
    pub own: Vec<String>,
}

impl Event {
    /// Creates an event without an ordinal and a state.
    pub fn new(data: Arc<EventData>, position: u64, seq: u64, created_at_ms: i64) -> Self {
        Self { data, position, seq, created_at_ms, ordinal: None, state: None, message: None, own: Vec::new() }
    }

    /// Gives the event its ordinal if it counts; `count` is the number of countable messages up to the event.
    pub fn counted(mut self, count: Option<i64>) -> Self {
        self.ordinal = count.filter(|_| self.data.kind.is_countable()).map(|count| count as u64);
        self
    }

    /// Gives a message the state that changes have made of it, with its present text and data if they were edited.
    pub fn fold(&mut self, state: State, text: Option<String>, data: Option<String>) {
        if state.deleted_by.is_some() {
            Arc::make_mut(&mut self.data).body.clear();
        } else if text.is_some() || data.is_some() {
            let body = &mut Arc::make_mut(&mut self.data).body;
            body.content = text.unwrap_or_else(|| std::mem::take(&mut body.content));
            body.data = data.unwrap_or_else(|| std::mem::take(&mut body.data));
        }
        self.state = Some(Box::new(state));
    }

    /// Gives a change its message. That of a reaction has the reactions after it, whatever followed, and no text,
    /// files and data, which a reaction does not change.
    pub fn give_message(&mut self, mut message: Self) {
        if self.data.change.is_some_and(|change| change.op == Op::React) {
            Arc::make_mut(&mut message.data).body.clear();
            let state = State { revision: self.seq, reactions: self.data.body.reactions.clone(), ..State::default() };
            message.state = Some(Box::new(state));
        }
        self.message = Some(Arc::new(message));
    }

    /// Returns a close upper bound on the encoded size, in bytes.
    pub fn size(&self) -> usize {
        let state = self.state.as_deref().map_or(0, State::size);
        self.data.size() + state + self.message.as_ref().map_or(0, |message| message.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Member, Reaction, Role};

    #[test]
    fn size_is_an_upper_bound_of_the_encoded_size() {
        let text = |length| "x".repeat(length);
        let file = File {
            id: Uuid::max(),
            name: text(200),
            size: u64::MAX,
            content_type: text(200),
            sha256: text(64),
            uploader: Uuid::max(),
            uploader_username: text(200),
            created_at_ms: i64::MAX,
            safe_inline: true,
            deleted: false,
        };
        let deleted_by = Some((Uuid::max(), text(256)));
        let reactions = vec![Reaction { name: text(64), count: u64::MAX }; 20];
        let state = State {
            revision: u64::MAX,
            edited_at_ms: Some(i64::MAX),
            deleted_by,
            pinned: true,
            reactions: reactions.clone(),
        };
        for files in [vec![], vec![file.clone(); 10], vec![File { deleted: true, ..file }; 10]] {
            let members = vec![Member { user: Uuid::max(), role: Role::Member }; files.len()];
            let access =
                AccessChange { members, removed: vec![Uuid::max(); 3], private: true, changes_visibility: true };
            let body = Body {
                sender_username: text(200),
                content: text(16_384),
                event: text(200),
                data: text(200),
                access: Some(access),
                files,
                reacted: vec![Reacted { user: Uuid::max(), username: text(200), name: text(64), on: true }; 3],
                reactions: reactions.clone(),
            };
            let (id, client_id) = (Uuid::max(), client_id(Some(&text(128)), Uuid::max()));
            let data = EventData {
                partition: u32::MAX,
                room: id,
                id,
                kind: Kind::System,
                sender: id,
                client_id,
                body,
                change: None,
                closes_room: false,
            };
            let in_a_page = EVENT_OVERHEAD + data.client_id.len() + data.body.to_text().unwrap().len();
            let size = data.size();
            let message = Event::new(Arc::new(data), u64::MAX, u64::MAX, i64::MAX);
            let encoded = prost::Message::encoded_len(&crate::convert::event(&message));
            assert!(encoded <= size && encoded <= in_a_page, "{encoded} bytes, estimated as {size} and {in_a_page}");
            let mut folded = Event { state: Some(Box::new(state.clone())), ..message.clone() };
            let change = Change { target: u64::MAX, ..Change::new(1, Op::Edit) };
            let change = EventData { kind: Kind::Change, change: Some(change), ..EventData::clone(&message.data) };
            folded = Event { data: Arc::new(change), state: None, message: Some(Arc::new(folded)), ..message };
            let (encoded, size) = (prost::Message::encoded_len(&crate::convert::event(&folded)), folded.size());
            assert!(encoded <= size, "{encoded} bytes, estimated as {size}");
        }
    }

    #[test]
    fn body_without_files_keeps_its_format() {
        let body = Body { sender_username: "ada".into(), content: "hi".into(), ..Body::default() };
        let text = r#"{"sender_username":"ada","content":"hi"}"#;
        assert_eq!((body.to_text().unwrap().as_str(), Body::from_text(text).unwrap()), (text, body));
    }

    #[test]
    fn chosen_client_id_never_equals_an_event_id() {
        let id = Uuid::now_v7();
        assert_ne!(client_id(Some(&id.to_string()), id), client_id(None, id));
    }
}

//! Events: before they are appended, and in the log.

use std::sync::Arc;

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A user's message.
    Message = 1,
    /// A shared file.
    File = 2,
    /// A change of the room.
    System = 3,
}

impl TryFrom<i64> for Kind {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        match number {
            1 => Ok(Self::Message),
            2 => Ok(Self::File),
            3 => Ok(Self::System),
            _ => Err(Error::internal(format_args!("no kind of event has number {number}"))),
        }
    }
}

/// The content of an event, stored as one JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The sender's name at that time.
    pub sender_username: String,
    /// The text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// [`Kind::System`]: the name of the room event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// [`Kind::System`]: a JSON object with its details.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// The shared or attached files, as they were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// A file of the event's room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Which.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// A media type.
    pub content_type: String,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Who uploaded it.
    pub uploader: Uuid,
    /// That user's name at that time.
    pub uploader_username: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// A browser may show it in place.
    pub safe_inline: bool,
    /// Whether it was deleted since. Not stored with the event: [`Store::forget_files`](super::Store::forget_files)
    /// covers all events.
    #[serde(skip)]
    pub deleted: bool,
}

impl Body {
    pub(super) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    pub(super) fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(Error::internal)
    }
}

/// An event before the log has numbered it. (partition, room, sender, client id) is its identity: the log has it at
/// most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The partition of the room.
    pub partition: u32,
    /// Where.
    pub room: Uuid,
    /// Minted by the caller before its first attempt.
    pub id: Uuid,
    /// What.
    pub kind: Kind,
    /// Who.
    pub sender: Uuid,
    /// See [`client_id`].
    pub client_id: String,
    /// What it says.
    pub body: Body,
    /// Whether the room is closed after it. Not stored with the event.
    pub closes_room: bool,
}

/// An event's client id: the one that the client chose, or the event's own id in a separate namespace.
pub fn client_id(client_message_id: Option<&str>, id: Uuid) -> String {
    match client_message_id {
        Some(chosen) => format!("c:{chosen}"),
        None => format!("i:{id}"),
    }
}

impl Draft {
    /// The `clientMessageId`, if the client chose one.
    pub fn client_message_id(&self) -> Option<&str> {
        self.client_id.strip_prefix("c:")
    }

    /// An upper bound on its encoded size in bytes, but a close one.
    pub fn size(&self) -> usize {
        let body = &self.body;
        let texts = self.client_id.len() + body.sender_username.len() + body.content.len() + body.event.len() + body.data.len();
        EVENT_OVERHEAD + texts + body.files.iter().map(File::size_on_the_wire).sum::<usize>()
    }
}

impl File {
    fn size_on_the_wire(&self) -> usize {
        FILE_OVERHEAD + self.name.len() + self.content_type.len() + self.sha256.len() + self.uploader_username.len()
    }
}

/// Most bytes of an encoded event besides its body and client id.
pub const EVENT_OVERHEAD: usize = 200;
/// Most bytes of an encoded file besides its texts: less than the field names take in a body's JSON.
const FILE_OVERHEAD: usize = 160;

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The appended draft; shared, because it goes to the caller and to the bus.
    pub draft: Arc<Draft>,
    /// 1, 2, 3 … within the partition.
    pub position: u64,
    /// 1, 2, 3 … within the room.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_never_less_than_what_is_encoded() {
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
        for files in [vec![], vec![file.clone(); 10], vec![File { deleted: true, ..file }; 10]] {
            let body = Body { sender_username: text(200), content: text(16_384), event: text(200), data: text(200), files };
            let (id, client_id) = (Uuid::max(), client_id(Some(&text(128)), Uuid::max()));
            let draft = Draft { partition: u32::MAX, room: id, id, kind: Kind::System, sender: id, client_id, body, closes_room: false };
            let in_a_page = EVENT_OVERHEAD + draft.client_id.len() + draft.body.to_text().unwrap().len();
            let size = draft.size();
            let event = Event { draft: Arc::new(draft), position: u64::MAX, seq: u64::MAX, created_at_ms: i64::MAX };
            let encoded = prost::Message::encoded_len(&crate::wire::event(&event));
            assert!(encoded <= size && encoded <= in_a_page, "{encoded} bytes, taken for {size} and {in_a_page}");
        }
    }

    #[test]
    fn a_body_without_files_is_written_as_before() {
        let body = Body { sender_username: "ada".into(), content: "hi".into(), ..Body::default() };
        let text = r#"{"sender_username":"ada","content":"hi"}"#;
        assert_eq!((body.to_text().unwrap().as_str(), Body::from_text(text).unwrap()), (text, body));
    }

    #[test]
    fn a_chosen_client_id_never_equals_an_event_id() {
        let id = Uuid::now_v7();
        assert_ne!(client_id(Some(&id.to_string()), id), client_id(None, id));
    }
}

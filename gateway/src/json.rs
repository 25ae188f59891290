//! The public JSON of what services return. REST and real time show the same thing in the same words.

use std::fmt;

use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::File;
use confab_proto::message::v1::{Event, Kind};
use confab_proto::room::v1::{Role, Room, Visibility};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A user as other objects refer to one.
#[derive(Debug, Clone, Serialize)]
pub struct UserJson<'a> {
    /// UUIDv7.
    pub id: &'a str,
    /// As the user wrote it.
    pub username: &'a str,
}

impl<'a> From<&'a UserRef> for UserJson<'a> {
    fn from(user: &'a UserRef) -> Self {
        Self { id: &user.id, username: &user.username }
    }
}

/// A Message of the public contract.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageJson<'a> {
    id: &'a str,
    room_id: &'a str,
    seq: u64,
    r#type: &'static str,
    sender: Option<UserJson<'a>>,
    content: &'a str,
    files: Files<'a>,
    client_message_id: Option<&'a str>,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl<'a> From<&'a Event> for MessageJson<'a> {
    fn from(event: &'a Event) -> Self {
        let system = event.kind() == Kind::System;
        Self {
            id: &event.id,
            room_id: &event.room_id,
            seq: event.seq,
            r#type: match event.kind() {
                Kind::System => "system",
                Kind::File => "file",
                Kind::Message | Kind::Unspecified => "message",
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

/// The files of a message.
#[derive(Debug, Clone)]
struct Files<'a>(&'a [File]);

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(FileJson::from))
    }
}

/// A File of the public contract.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum FileJson<'a> {
    /// One that can be had.
    #[serde(rename_all = "camelCase")]
    Present {
        /// UUIDv7.
        id: &'a str,
        /// A last path component.
        name: &'a str,
        /// Bytes.
        size: u64,
        /// As far as it is known.
        content_type: &'a str,
        /// Lower-case hexadecimal.
        sha256: &'a str,
        /// Where its bytes are.
        url: FileUrl<'a>,
        /// The room it belongs to.
        room_id: Option<&'a str>,
        /// By whom.
        uploaded_by: Option<UserJson<'a>>,
        /// When.
        created_at: Time,
    },
    /// One that messages still name.
    Deleted {
        /// UUIDv7.
        id: &'a str,
        /// What it was called.
        name: &'a str,
        /// True.
        deleted: bool,
    },
}

impl<'a> From<&'a File> for FileJson<'a> {
    fn from(file: &'a File) -> Self {
        match file.deleted {
            true => Self::Deleted { id: &file.id, name: &file.name, deleted: true },
            false => Self::Present {
                id: &file.id,
                name: &file.name,
                size: file.size,
                content_type: &file.content_type,
                sha256: &file.sha256,
                url: FileUrl(&file.id),
                room_id: file.room_id.as_deref(),
                uploaded_by: file.uploaded_by.as_ref().map(UserJson::from),
                created_at: Time(file.created_at_ms),
            },
        }
    }
}

/// Where a file's bytes are, relative to this server.
#[derive(Debug, Clone, Copy)]
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

/// A Room of the public contract.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomJson<'a> {
    id: &'a str,
    name: &'a str,
    description: &'a str,
    visibility: &'static str,
    role: Option<&'static str>,
    created_by: Option<UserJson<'a>>,
    created_at: Time,
    last_seq: u64,
}

impl<'a> RoomJson<'a> {
    /// A room with the newest `seq` of its log.
    pub fn new(room: &'a Room, last_seq: u64) -> Self {
        Self {
            id: &room.id,
            name: &room.name,
            description: &room.description,
            visibility: match room.visibility() {
                Visibility::Private => "private",
                Visibility::Public | Visibility::Unspecified => "public",
            },
            role: match room.role() {
                Role::Owner => Some("owner"),
                Role::Admin => Some("admin"),
                Role::Member => Some("member"),
                Role::Unspecified => None,
            },
            created_by: room.created_by.as_ref().map(UserJson::from),
            created_at: Time(room.created_at_ms),
            last_seq,
        }
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// What it holds.
    pub items: Vec<T>,
    /// Where the list goes on; nothing at its end.
    pub next_cursor: Option<String>,
}

/// Milliseconds since the Unix epoch, written as RFC 3339 UTC with milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        let time = Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        serializer.serialize_str(&PRINTER.timestamp_to_string(&time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_as_the_contract_shows_it() {
        let mut event = Event {
            id: "m".into(),
            room_id: "r".into(),
            seq: 7,
            kind: Kind::Message.into(),
            sender: Some(UserRef { id: "u".into(), username: "Zoë".into() }),
            content: "hi\n".into(),
            created_at_ms: 1_795_382_645_120,
            ..Event::default()
        };
        let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
        assert_eq!(
            json,
            r#"{"id":"m","roomId":"r","seq":7,"type":"message","sender":{"id":"u","username":"Zoë"},"content":"hi\n","files":[],"clientMessageId":null,"createdAt":"2026-11-22T21:24:05.120Z"}"#
        );
        event.kind = Kind::File.into();
        event.files = vec![
            File {
                id: "f".into(),
                name: "a.png".into(),
                size: 5,
                content_type: "image/png".into(),
                sha256: "00".into(),
                uploaded_by: event.sender.clone(),
                ..File::default()
            },
            File { id: "g".into(), name: "b".into(), size: 7, deleted: true, ..File::default() },
        ];
        let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
        let present = r#"{"id":"f","name":"a.png","size":5,"contentType":"image/png","sha256":"00","url":"/api/files/f","roomId":null,"uploadedBy":{"id":"u","username":"Zoë"},"createdAt":"1970-01-01T00:00:00.000Z"}"#;
        let files = format!(
            r#""type":"file","sender":{{"id":"u","username":"Zoë"}},"content":"hi\n","files":[{present},{{"id":"g","name":"b","deleted":true}}]"#
        );
        assert!(json.contains(&files), "{json}");
        event.kind = Kind::System.into();
        event.event = "roomUpdated".into();
        event.data = r#"{"name":"Tea"}"#.into();
        let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
        assert!(json.contains(r#""type":"system""#) && json.ends_with(r#""event":"roomUpdated","data":{"name":"Tea"}}"#), "{json}");
    }
}

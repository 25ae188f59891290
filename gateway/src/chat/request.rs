//! Parses the events that a client may send. The handlers are in `handle.rs`.

use bytes::Bytes;
use confab_common::{Code, Error, Result, text};
use confab_proto::message::v1::Op;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::new_change::NewChange;
use crate::new_message::{NewMessage, check_client_message_id};
use crate::payload::{RoomOr, any_number, read_room, read_text};
use crate::rooms::history::{MAX_MESSAGES, Wanted};

/// Largest file over a socket, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

pub enum Request {
    Join(Join),
    Leave,
    Send(NewMessage),
    Change(NewChange),
    React(NewChange),
    Upload(FileUpload),
    /// The user has read the room up to this `seq`.
    Read(u64),
    /// Whether the user is typing.
    Typing(bool),
    /// A new token.
    Auth(String),
}

impl Request {
    /// The name of the event in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Join(_) => "joinRoom",
            Self::Leave => "leaveRoom",
            Self::Send(_) => "message",
            Self::Change(change) => match change.op {
                Op::Delete => "remove",
                Op::Pin | Op::Unpin => "pin",
                Op::Edit | Op::React | Op::Unspecified => "edit",
            },
            Self::React(_) => "react",
            Self::Upload(_) => "fileUpload",
            Self::Read(_) => "read",
            Self::Typing(_) => "typing",
            Self::Auth(_) => "auth",
        }
    }

    /// Whether the request may share an append with others.
    pub fn is_send(&self) -> bool {
        matches!(self, Self::Send(_) | Self::Change(_))
    }

    /// Whether the request needs a permit, because the number in flight per socket is bounded.
    pub fn needs_permit(&self) -> bool {
        self.is_send() || matches!(self, Self::Upload(_))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaveArgument {
    room_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadArgument {
    room_id: String,
    #[serde(deserialize_with = "any_number")]
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReactArgument {
    room_id: String,
    seq: u64,
    id: Option<String>,
    name: String,
    on: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypingArgument {
    room_id: String,
    on: bool,
}

#[derive(Deserialize)]
struct AuthArgument {
    token: String,
}

/// Parses an event into its room and its request. An event about no room has the nil id.
///
/// # Errors
/// `not_found` for an unknown event; `invalid_request` for an invalid payload; `too_large` for a file over 1 MiB.
pub fn parse(name: &str, argument: Option<&RawValue>, attachments: &[Bytes]) -> Result<(Uuid, Request)> {
    let argument = argument.map_or("null", RawValue::get);
    match name {
        "joinRoom" => {
            let join = Join::parse(argument)?;
            Ok((join.room, Request::Join(join)))
        }
        "leaveRoom" => {
            let room = match read_room(argument, "a room id or { roomId }")? {
                RoomOr::Id(room_id) | RoomOr::Object(LeaveArgument { room_id }) => text::id("roomId", &room_id)?,
            };
            Ok((room, Request::Leave))
        }
        "message" => {
            let message: NewMessage = read_text(argument, "{ roomId, content, clientMessageId?, fileIds?, data? }")?;
            Ok((text::id("roomId", &message.room_id)?, Request::Send(message)))
        }
        "edit" | "remove" | "pin" => {
            let change = parse_change(name, argument)?;
            Ok((change.room, Request::Change(change)))
        }
        "react" => {
            let ReactArgument { room_id, seq, id, name, on } = read_text(argument, "{ roomId, seq, name, on, id? }")?;
            let room = text::id("roomId", &room_id)?;
            Ok((room, Request::React(NewChange { target_id: id, ..NewChange::react(room, seq, name, on) })))
        }
        "fileUpload" => {
            let file = FileUpload::parse(argument, attachments)?;
            Ok((file.room, Request::Upload(file)))
        }
        "read" => {
            let ReadArgument { room_id, seq } = read_text(argument, "{ roomId, seq }")?;
            Ok((text::id("roomId", &room_id)?, Request::Read(seq)))
        }
        "typing" => {
            let TypingArgument { room_id, on } = read_text(argument, "{ roomId, on }")?;
            Ok((text::id("roomId", &room_id)?, Request::Typing(on)))
        }
        "auth" => {
            let AuthArgument { token } = read_text(argument, "{ token }")?;
            Ok((Uuid::nil(), Request::Auth(token)))
        }
        _ => Err(Error::new(Code::NotFound, "no such event")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeArgument {
    room_id: String,
    seq: u64,
    id: Option<String>,
    content: Option<String>,
    client_message_id: Option<String>,
    data: Option<Box<RawValue>>,
    on: Option<bool>,
}

/// Parses `edit`, `remove` or `pin`.
fn parse_change(name: &str, argument: &str) -> Result<NewChange> {
    let shape = match name {
        "edit" => "{ roomId, seq, content?, data?, id?, clientMessageId? }",
        "remove" => "{ roomId, seq, id?, clientMessageId? }",
        _ => "{ roomId, seq, on, id? }",
    };
    let given: ChangeArgument = read_text(argument, shape)?;
    let (room, target) = (text::id("roomId", &given.room_id)?, given.seq);
    let data = given.data.map(|data| Box::<str>::from(data).into_string());
    let (change, client_message_id) = match (name, given.on) {
        ("edit", _) => (NewChange::edit(room, target, given.content, data)?, given.client_message_id),
        ("remove", _) => (NewChange::new(room, target, Op::Delete), given.client_message_id),
        (_, None) => return Err(Error::field("on", "must be given")),
        // A pin is a state: a client that repeats the event sets it again.
        (_, Some(on)) => (NewChange::new(room, target, if on { Op::Pin } else { Op::Unpin }), None),
    };
    Ok(NewChange { target_id: given.id, client_message_id, ..change })
}

/// A valid `joinRoom`: with `after`, `last`, or neither.
#[derive(Debug, PartialEq, Eq)]
pub struct Join {
    pub room: Uuid,
    pub history: Wanted,
    pub epoch: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinArgument {
    room_id: String,
    after: Option<u64>,
    from: Option<u64>,
    last: Option<u32>,
    epoch: Option<String>,
}

impl Join {
    /// Parses the payload.
    ///
    /// # Errors
    /// `invalid_request` with the name of the field.
    pub fn parse(argument: &str) -> Result<Self> {
        let JoinArgument { room_id, after, from, last, epoch } =
            match read_room(argument, "a room id or { roomId, after?, from?, epoch? } or { roomId, last? }")? {
                RoomOr::Id(room_id) => JoinArgument { room_id, ..JoinArgument::default() },
                RoomOr::Object(argument) => argument,
            };
        if from.is_some() && after.is_none() {
            return Err(Error::field("from", "must go together with after"));
        }
        let history = match (after, last) {
            (None, None) => Wanted::End,
            (Some(after), None) => Wanted::After { after, changed_from: Some(from.unwrap_or(1)) },
            (None, Some(last @ 1..=MAX_MESSAGES)) => Wanted::Last(last),
            (None, Some(_)) => return Err(Error::field("last", "must be from 1 to 200")),
            (Some(_), Some(_)) => return Err(Error::field("last", "cannot go together with after")),
        };
        Ok(Self { room: text::id("roomId", &room_id)?, history, epoch })
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct FileUpload {
    pub room: Uuid,
    pub name: String,
    pub content_type: Option<String>,
    pub data: Bytes,
    pub client_message_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UploadArgument {
    room_id: String,
    name: String,
    content_type: Option<String>,
    data: Placeholder,
    client_message_id: Option<String>,
}

/// The placeholder in the text for an attachment that follows it.
/// <https://github.com/socketio/socket.io-protocol#packet-encoding>
#[derive(Deserialize)]
#[serde(expecting = "binary data")]
struct Placeholder {
    #[serde(rename = "_placeholder", default)]
    is_placeholder: bool,
    #[serde(default)]
    num: usize,
    /// Without this field, serde would also accept an array with the fields in order.
    #[serde(flatten)]
    _rest: IgnoredAny,
}

impl FileUpload {
    /// Parses the payload with its attachments.
    ///
    /// # Errors
    /// `invalid_request` with the name of the field; `too_large` for a file over 1 MiB, which needs a REST upload.
    pub fn parse(argument: &str, attachments: &[Bytes]) -> Result<Self> {
        let given: UploadArgument =
            read_text(argument, "{ roomId, name, contentType?, data, clientMessageId? } with binary data")?;
        let room = text::id("roomId", &given.room_id)?;
        if let Some(id) = &given.client_message_id {
            check_client_message_id(id)?;
        }
        let data = attachments.get(given.data.num).filter(|_| given.data.is_placeholder);
        let data = data.ok_or_else(|| Error::field("data", "must be binary data"))?;
        if data.len() > MAX_FILE {
            let detail = format!("data must be at most {MAX_FILE} bytes here; use POST /api/files/upload");
            return Err(Error::new(Code::TooLarge, detail));
        }
        let UploadArgument { name, content_type, client_message_id, .. } = given;
        Ok(Self { room, name, content_type, data: data.clone(), client_message_id })
    }
}

#[cfg(test)]
mod tests;

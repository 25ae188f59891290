//! `fileUpload`: a small file over the socket. It takes the same path to the file service as a REST upload.

use bytes::Bytes;
use confab_common::{Code, Error, Result, text};
use confab_proto::file::v1::UploadResponse;
use confab_proto::file::v1::upload_request::{Begin, Finish};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::session::Session;
use crate::draft::check_client_message_id;
use crate::payload::read_text;
use crate::upload::Upload;
use crate::views::{FileJson, MessageJson};

/// Largest file that comes over a socket, in bytes.
const MAX_FILE: usize = 1024 * 1024;
/// Bytes sent to the file service at once.
const PIECE: usize = 64 * 1024;

/// A valid `fileUpload`.
#[derive(Debug, PartialEq, Eq)]
pub struct FileUpload {
    /// Where to.
    pub room: Uuid,
    name: String,
    content_type: Option<String>,
    data: Bytes,
    client_message_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    room_id: String,
    name: String,
    content_type: Option<String>,
    data: Placeholder,
    client_message_id: Option<String>,
}

/// Stands in the text for an attachment that follows it.
#[derive(Deserialize)]
#[serde(expecting = "binary data")]
struct Placeholder {
    #[serde(rename = "_placeholder", default)]
    is_placeholder: bool,
    #[serde(default)]
    num: usize,
    /// Without it, serde would also read an array, as the fields in order.
    #[serde(flatten)]
    _rest: IgnoredAny,
}

impl FileUpload {
    /// Reads the payload with its attachments.
    ///
    /// # Errors
    /// `invalid_request` that names the field; `too_large` for a file that must be uploaded over REST.
    pub fn parse(argument: &str, attachments: &[Bytes]) -> Result<Self> {
        let given: Argument = read_text(argument, "{ roomId, name, contentType?, data, clientMessageId? } with binary data")?;
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
        let Argument { name, content_type, client_message_id, .. } = given;
        Ok(Self { room, name, content_type, data: data.clone(), client_message_id })
    }

    /// Sends the file to the file service, which shares it in the room.
    ///
    /// # Errors
    /// The service's refusal; `timeout` when the outcome is not known in time.
    pub async fn send(self, session: &Session) -> Result<Uploaded> {
        let identity = session.socket.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
        let clients = &session.edge.clients;
        let begin = Begin {
            caller: Some(identity.user.clone()),
            name: self.name,
            content_type: self.content_type.unwrap_or_default(),
            at_least: self.data.len() as u64,
            room_id: Some(self.room.to_string()),
            client_message_id: self.client_message_id,
        };
        let within = clients.call.deadline;
        let finish = Finish { timeout_ms: within.as_millis() as u32, ..Finish::default() };
        let mut data = self.data;
        let sent = async {
            let mut upload = Upload::begin(clients, begin);
            while !data.is_empty() {
                upload.send(data.split_to(data.len().min(PIECE))).await?;
            }
            upload.finish(finish).await
        };
        // The time that the event waited behind others does not count.
        timeout(within, sent).await.unwrap_or_else(|_| Err(Error::timeout())).map(Uploaded)
    }
}

/// A file that was shared in its room.
pub struct Uploaded(UploadResponse);

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    file: Option<FileJson<'a>>,
    message: Option<MessageJson<'a>>,
}

impl Uploaded {
    /// The acknowledgement.
    pub fn answer(&self) -> impl Serialize {
        Answer { ok: true, file: self.0.file.as_ref().map(FileJson::from), message: self.0.message.as_ref().map(MessageJson::from) }
    }
}

#[cfg(test)]
mod tests;

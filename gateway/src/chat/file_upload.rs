//! `fileUpload`: a file of up to 1 MiB over the socket. It takes the same path to the file service as a REST upload.

use confab_common::{Code, Error, Result};
use confab_proto::file::v1::UploadResponse;
use confab_proto::file::v1::upload_request::{Begin, Finish};
use serde::Serialize;
use tokio::time::timeout;

use super::client::Socket;
use super::context::Chat;
use super::request::FileUpload;
use crate::limits::Act;
use crate::upload::Upload;
use crate::views::{FileJson, MessageJson};

/// Size of a chunk for the file service, in bytes.
const PIECE: usize = 64 * 1024;

/// Sends the file to the file service, which shares it in the room.
///
/// # Errors
/// The error of the file service; `timeout` when the outcome is unknown at the deadline.
pub async fn send(chat: &Chat, socket: &Socket, file: FileUpload) -> Result<Uploaded> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    chat.limits.check(Act::Upload, identity.user_id).await?;
    let clients = &chat.clients;
    let begin = Begin {
        caller: Some(identity.user.clone()),
        name: file.name,
        content_type: file.content_type.unwrap_or_default(),
        at_least: file.data.len() as u64,
        room_id: Some(file.room.to_string()),
        client_message_id: file.client_message_id,
    };
    let within = clients.call.deadline;
    let finish = Finish { timeout_ms: within.as_millis() as u32, ..Finish::default() };
    let mut data = file.data;
    let sent = async {
        let mut upload = Upload::begin(clients, &socket.client.credential.present(), begin);
        while !data.is_empty() {
            upload.send(data.split_to(data.len().min(PIECE))).await?;
        }
        upload.finish(finish).await
    };
    // The deadline starts here, because the event may have waited behind other events.
    timeout(within, sent).await.unwrap_or_else(|_| Err(Error::timeout())).map(Uploaded)
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
    pub fn answer(&self) -> impl Serialize {
        Answer {
            ok: true,
            file: self.0.file.as_ref().map(FileJson::from),
            message: self.0.message.as_ref().map(MessageJson::from),
        }
    }
}

#[cfg(test)]
mod tests;

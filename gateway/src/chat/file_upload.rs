//! `fileUpload`: a file of up to 1 MiB over the socket. It takes the same path to the file service as a REST upload. The
//! gateway has the whole file, so it repeats an upload that the file service rejects with `unavailable`.

use std::time::Duration;

use bytes::Bytes;
use confab_common::{Code, Error, Result};
use confab_identity::credential::Credential;
use confab_proto::file::v1::UploadResponse;
use confab_proto::file::v1::upload_request::{Begin, Finish};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::Socket;
use super::context::Chat;
use super::request::FileUpload;
use crate::backoff::{is_worth_it, pauses};
use crate::clients::Clients;
use crate::limits::Act;
use crate::upload::Upload;
use crate::views::{FileJson, MessageJson};

/// Size of a chunk for the file service, in bytes.
const PIECE: usize = 64 * 1024;

/// Sends the file to the file service, which shares it in the room. `unavailable` means that nothing was done, so the
/// upload is then repeated while there is time.
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
    // The deadline starts here, because the event may have waited behind other events.
    let mut left = clients.call.deadline;
    let deadline = Instant::now() + left;
    let mut backoff = pauses();
    loop {
        // The user may have presented another token meanwhile.
        let credential = socket.client.credential.present();
        let attempt = upload(clients, &credential, begin.clone(), file.data.clone(), left);
        let error = match timeout_at(deadline, attempt).await {
            Ok(Ok(uploaded)) => return Ok(Uploaded(uploaded)),
            Ok(Err(error)) if error.code == Code::Unavailable => error,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::timeout()),
        };
        let pause = backoff.pause();
        if !is_worth_it(Instant::now() + pause, deadline) {
            return Err(error);
        }
        sleep(pause).await;
        left = deadline.saturating_duration_since(Instant::now());
    }
}

async fn upload(
    clients: &Clients,
    credential: &Credential,
    begin: Begin,
    mut data: Bytes,
    left: Duration,
) -> Result<UploadResponse> {
    let mut upload = Upload::begin(clients, credential, begin);
    while !data.is_empty() {
        upload.send(data.split_to(data.len().min(PIECE))).await?;
    }
    upload.finish(Finish { timeout_ms: left.as_millis() as u32, ..Finish::default() }).await
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
    /// The `seq` of the file's message.
    pub fn seq(&self) -> u64 {
        self.0.message.as_ref().map_or(0, |message| message.seq)
    }

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

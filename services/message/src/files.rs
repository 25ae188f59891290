//! Attaches the files of messages: the file service assigns them to the room and returns their metadata.

use std::time::Duration;

use confab_common::grpc::{Call, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::AttachFilesRequest;
use confab_proto::file::v1::file_service_client::FileServiceClient;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::convert;
use crate::store::{EventData, File};

/// Must end before a gateway's attempt at an append times out.
const CALL: Call = Call::within(Duration::from_millis(800)).attempt(Duration::from_millis(400));
/// How long the file service is not called after a timeout, because events that arrived together with a message with
/// files wait for the same call.
const PAUSE_AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// The client of the file service.
pub struct Files {
    file: FileServiceClient<Transport>,
    // Locked for a comparison, never across an await.
    rest_until: Mutex<Option<Instant>>,
}

impl Files {
    pub fn new(file: Transport) -> Self {
        Self { file: FileServiceClient::new(file), rest_until: Mutex::default() }
    }

    /// Attaches files of the event's sender to the event's room, if necessary, and returns them in the order of `ids`.
    ///
    /// # Errors
    /// `not_found` and `conflict` for `fileIds`; `unavailable` when no file replica answers.
    pub async fn attach(&self, data: &EventData, ids: &[Uuid]) -> Result<Vec<File>> {
        let begun = Instant::now();
        if self.rest_until.lock().is_some_and(|until| begun < until) {
            return Err(unavailable());
        }
        let room_id = data.room.to_string();
        let caller = UserRef { id: data.sender.to_string(), username: data.body.sender_username.clone() };
        let question = AttachFilesRequest {
            caller: Some(caller),
            room_id: room_id.clone(),
            ids: ids.iter().map(Uuid::to_string).collect(),
        };
        let answer = self.file.clone().attach_files(request(question, CALL)).await.map_err(|status| {
            if begun.elapsed() >= CALL.attempt {
                *self.rest_until.lock() = Some(Instant::now() + PAUSE_AFTER_TIMEOUT);
            }
            refusal(status.into())
        })?;
        let files = answer
            .into_inner()
            .files
            .into_iter()
            .map(|file| convert::new_file(file, &room_id))
            .collect::<Result<Vec<_>>>();
        files
            .ok()
            .filter(|files| files.iter().map(|file| file.id).eq(ids.iter().copied()))
            .ok_or_else(|| Error::internal("the file service attached different files"))
    }
}

fn unavailable() -> Error {
    Error::unavailable("the file service")
}

fn refusal(error: Error) -> Error {
    match error.code {
        Code::NotFound => Error::new(Code::NotFound, "fileIds must be of files that exist"),
        Code::Conflict => Error::new(Code::Conflict, "fileIds must not be of files in another room"),
        // Whether or not the files were attached, the message is not in the log.
        Code::Unavailable | Code::Timeout => unavailable(),
        _ => error,
    }
}

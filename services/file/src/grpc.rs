//! Converts gRPC requests to domain calls, and results back to gRPC.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::operation;
use confab_common::{Code, Error, Result, text};
use confab_identity::{Claim, verified};
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1 as pb;
use confab_proto::file::v1::file_service_server::FileService;
use confab_proto::limits::{MAX_CLIENT_MESSAGE_ID, MAX_FILES};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use pb::upload_request::{Begin, Finish, Part};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::metrics::METRICS;
use crate::service::{Files, Link, Reader, no_token, unknown};
use crate::store::User;
use crate::{convert, upload};

/// Time limit for the first part of an upload.
const FIRST_PART: Duration = Duration::from_secs(30);
/// Maximum files that one call may drop.
const MAX_DROPPED: usize = 100;

pub struct FileApi(Arc<Files>);

impl FileApi {
    pub(crate) fn new(files: Files) -> Self {
        Self(Arc::new(files))
    }
}

#[tonic::async_trait]
impl FileService for FileApi {
    async fn upload(
        &self,
        request: Request<Streaming<pb::UploadRequest>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let claim = Claim::of(&request);
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(FIRST_PART, stream.message()).await.map_err(|_| out_of_order())??;
        let Some(Part::Begin(mut first)) = first.and_then(|first| first.part) else {
            return Err(out_of_order().into());
        };
        claim.check(&mut first)?;
        let parts = stream.map(|part| following(part.map_err(broken)?)).boxed();
        let upload::Uploaded { file, message, duplicate } = self.0.upload(begin(first)?, parts).await?;
        Ok(Response::new(pb::UploadResponse { file: Some(convert::file(&file)), message, duplicate }))
    }

    async fn get_file(&self, request: Request<pb::GetFileRequest>) -> Result<Response<pb::File>, Status> {
        let pb::GetFileRequest { reader: by, id } = verified(request)?;
        let file = self.0.get(file_id(&id)?, &reader(by)?).await?;
        Ok(Response::new(convert::file(&file)))
    }

    type DownloadStream = BoxStream<'static, Result<pb::DownloadResponse, Status>>;

    async fn download(&self, request: Request<pb::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let pb::DownloadRequest { reader: by, id, offset, length } = verified(request)?;
        let bytes = self.0.download(file_id(&id)?, &reader(by)?, offset, length).await?;
        let counted = bytes.inspect_ok(|chunk| METRICS.downloaded.increment(chunk.len() as u64));
        Ok(Response::new(
            counted
                .map_ok(|chunk| pb::DownloadResponse { chunk })
                .inspect_err(Error::log_cause)
                .map_err(Status::from)
                .boxed(),
        ))
    }

    async fn list_files(
        &self,
        request: Request<pb::ListFilesRequest>,
    ) -> Result<Response<pb::ListFilesResponse>, Status> {
        let pb::ListFilesRequest { reader: by, room_id, limit, cursor } = verified(request)?;
        let page = self.0.list(&reader(by)?, optional_room(room_id)?, limit, &cursor).await?;
        let files = page.files.iter().map(convert::file).collect();
        Ok(Response::new(pb::ListFilesResponse { files, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn delete_file(
        &self,
        request: Request<pb::DeleteFileRequest>,
    ) -> Result<Response<pb::DeleteFileResponse>, Status> {
        let operation = operation(&request);
        let pb::DeleteFileRequest { caller, id, moderator } = verified(request)?;
        self.0.delete(file_id(&id)?, &required(caller)?, moderator, operation).await?;
        Ok(Response::new(pb::DeleteFileResponse {}))
    }

    async fn sign_link(&self, request: Request<pb::SignLinkRequest>) -> Result<Response<pb::Link>, Status> {
        let pb::SignLinkRequest { reader: by, id } = verified(request)?;
        let Link { expires_at_ms, signature } = self.0.sign(file_id(&id)?, &reader(by)?).await?;
        Ok(Response::new(pb::Link { expires_at_ms, signature }))
    }

    async fn attach_files(
        &self,
        request: Request<pb::AttachFilesRequest>,
    ) -> Result<Response<pb::AttachFilesResponse>, Status> {
        let pb::AttachFilesRequest { caller, room_id, ids } = request.into_inner();
        if ids.len() > MAX_FILES {
            return Err(Error::field("fileIds", format!("must be at most {MAX_FILES}")).into());
        }
        let ids = ids.iter().map(|id| text::id("fileIds", id)).collect::<Result<Vec<_>>>()?;
        let files = self.0.attach(&required(caller)?, text::id("roomId", &room_id)?, &ids).await?;
        Ok(Response::new(pb::AttachFilesResponse { files: files.iter().map(convert::file).collect() }))
    }

    async fn drop_files(
        &self,
        request: Request<pb::DropFilesRequest>,
    ) -> Result<Response<pb::DropFilesResponse>, Status> {
        let pb::DropFilesRequest { room_id, ids } = request.into_inner();
        if ids.len() > MAX_DROPPED {
            return Err(Error::field("ids", format!("must be at most {MAX_DROPPED}")).into());
        }
        let ids = ids.iter().map(|id| text::id("ids", id)).collect::<Result<Vec<_>>>()?;
        self.0.drop_of_room(text::id("roomId", &room_id)?, ids).await?;
        Ok(Response::new(pb::DropFilesResponse {}))
    }
}

fn begin(begin: Begin) -> Result<upload::Begin> {
    Ok(upload::Begin {
        caller: required(begin.caller)?,
        name: begin.name,
        content_type: begin.content_type,
        at_least: begin.at_least,
        target: target(begin.room_id, begin.client_message_id)?,
    })
}

/// Converts a part after the first.
fn following(request: pb::UploadRequest) -> Result<upload::Part> {
    match request.part {
        Some(Part::Chunk(chunk)) => Ok(upload::Part::Chunk(chunk)),
        Some(Part::Finish(Finish { room_id, client_message_id, timeout_ms })) => {
            Ok(upload::Part::Finish(target(room_id, client_message_id)?, Duration::from_millis(timeout_ms.into())))
        }
        Some(Part::Begin(_)) | None => Err(out_of_order()),
    }
}

/// Returns the error when the next part did not arrive. A caller that disconnects is not a failure of the service.
fn broken(status: Status) -> Error {
    match Error::from(status) {
        error if error.code == Code::Timeout => Error::new(Code::InvalidRequest, "the upload ended early"),
        error => error,
    }
}

fn out_of_order() -> Error {
    Error::new(Code::InvalidRequest, "an upload must be one Begin, then chunks, then one Finish")
}

fn target(room: Option<String>, client_message_id: Option<String>) -> Result<upload::Target> {
    if let Some(chosen) = &client_message_id {
        text::no_nul("clientMessageId", chosen)?;
        if !(1..=MAX_CLIENT_MESSAGE_ID).contains(&chosen.len()) {
            return Err(Error::field("clientMessageId", format!("must be 1 to {MAX_CLIENT_MESSAGE_ID} bytes")));
        }
    }
    Ok(upload::Target { room: optional_room(room)?, client_message_id })
}

fn optional_room(room: Option<String>) -> Result<Option<Uuid>> {
    room.map(|room| text::id("roomId", &room)).transpose()
}

/// Parses a file's id; a malformed id is `not_found`, like an unknown id.
fn file_id(id: &str) -> Result<Uuid> {
    text::id("id", id).map_err(|_| unknown())
}

fn reader(reader: Option<pb::Reader>) -> Result<Reader> {
    Ok(match reader.and_then(|reader| reader.reader) {
        Some(pb::reader::Reader::Caller(user)) => Reader::User(caller(user)?),
        Some(pb::reader::Reader::Moderator(key)) => Reader::Moderator(caller(key)?),
        Some(pb::reader::Reader::PictureOf(user)) => Reader::PictureOf(caller(user)?),
        Some(pb::reader::Reader::Link(pb::Link { expires_at_ms, signature })) => {
            Reader::Link(Link { expires_at_ms, signature })
        }
        None => Reader::Anonymous,
    })
}

fn required(user: Option<UserRef>) -> Result<User> {
    user.map(caller).transpose()?.ok_or_else(no_token)
}

fn caller(UserRef { id, username }: UserRef) -> Result<User> {
    text::no_nul("caller.username", &username)?;
    Ok(User { id: text::id("caller.id", &id)?, username })
}

//! A file service in memory, behind the real gRPC server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use confab_common::grpc::{Services, Transport, in_process};
use confab_common::{Code, Error};
use confab_proto::file::v1::file_service_server::{FileService, FileServiceServer};
use confab_proto::file::v1::upload_request::{Begin, Finish, Part};
use confab_proto::file::v1::*;
use confab_proto::message::v1::{Event, Kind};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::clients::Clients;

/// Largest file, in bytes.
pub const MAX_FILE: usize = 4 * 1024 * 1024;

/// The service. Clones share its files.
#[derive(Clone, Default)]
pub struct Files {
    state: Arc<Mutex<State>>,
    stalled: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<String, (File, Bytes)>,
    client_ids: BTreeMap<String, String>,
    under_way: usize,
    refusal: Option<Error>,
    /// Downloads fail after this many bytes.
    breaks_after: Option<usize>,
    finishes: Vec<Finish>,
    begins: Vec<Begin>,
}

impl Files {
    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn transport(&self) -> Transport {
        in_process(FileServiceServer::new(self.clone()))
    }

    /// Clients of the services, of which only this one is reachable.
    pub fn clients(&self) -> Clients {
        Clients::new(Services { file: self.transport(), ..Services::none() }, Duration::from_secs(2))
    }

    /// Rejects all later uploads immediately.
    pub fn refuse(&self, error: Error) {
        self.state().refusal = Some(error);
    }

    /// Accepts uploads again after [`refuse`](Self::refuse).
    pub fn accept(&self) {
        self.state().refusal = None;
    }

    /// Stops reading uploads and sending downloads.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Resumes after [`stall`](Self::stall).
    pub fn go_on(&self) {
        self.stalled.send_replace(false);
    }

    /// Makes later downloads fail after `bytes` bytes.
    pub fn break_after(&self, bytes: usize) {
        self.state().breaks_after = Some(bytes);
    }

    /// Stores a file; returns its id.
    pub fn put(&self, name: &str, content_type: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let id = Uuid::now_v7().to_string();
        let file = File {
            id: id.clone(),
            name: name.into(),
            size: bytes.len() as u64,
            content_type: content_type.into(),
            sha256: format!("{:064x}", bytes.len()),
            created_at_ms: 784_111_777_321,
            safe_inline: content_type.starts_with("image/"),
            ..File::default()
        };
        self.state().kept.insert(id.clone(), (file, bytes));
        id
    }

    /// Removes a file.
    pub fn remove(&self, id: &str) {
        self.state().kept.remove(id);
    }

    pub fn bytes(&self, id: &str) -> Option<Bytes> {
        self.state().kept.get(id).map(|(_, bytes)| bytes.clone())
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.state().kept.len()
    }

    /// The number of uploads in progress.
    pub fn under_way(&self) -> usize {
        self.state().under_way
    }

    /// The first and last messages of the uploads.
    pub fn uploads(&self) -> (Vec<Begin>, Vec<Finish>) {
        let state = self.state();
        (state.begins.clone(), state.finishes.clone())
    }

    async fn unless_stalled(&self) {
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    fn keep(&self, begin: Begin, finish: Finish, bytes: Bytes) -> UploadResponse {
        let id = Uuid::now_v7().to_string();
        let room_id = begin.room_id.or(finish.room_id.clone());
        let client_message_id = begin.client_message_id.or(finish.client_message_id.clone());
        let file = File {
            id: id.clone(),
            name: begin.name,
            size: bytes.len() as u64,
            content_type: begin.content_type,
            sha256: format!("{:064x}", bytes.len()),
            room_id: room_id.clone(),
            uploaded_by: begin.caller.clone(),
            ..File::default()
        };
        let mut state = self.state();
        state.client_ids.extend(client_message_id.clone().map(|client_id| (client_id, id.clone())));
        state.kept.insert(id.clone(), (file.clone(), bytes));
        state.finishes.push(finish);
        let seq = state.kept.len() as u64;
        let message = room_id.map(|room_id| Event {
            id: id.clone(),
            room_id,
            seq,
            kind: Kind::File.into(),
            sender: begin.caller,
            client_message_id,
            files: vec![file.clone()],
            ..Event::default()
        });
        UploadResponse { file: Some(file), message, duplicate: false }
    }

    fn find(&self, reader: Option<Reader>, id: &str) -> Result<(File, Bytes), Error> {
        match reader.and_then(|reader| reader.reader) {
            Some(reader::Reader::Link(link)) if link.signature != "good" => Err(Error::not_found("file")),
            _ => self.state().kept.get(id).cloned().ok_or_else(|| Error::not_found("file")),
        }
    }
}

/// Counts an upload as in progress until it is dropped.
struct UnderWay(Files);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

#[tonic::async_trait]
impl FileService for Files {
    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        self.unless_stalled().await;
        let mut parts = request.into_inner();
        let Some(Part::Begin(begin)) = parts.message().await?.and_then(|message| message.part) else {
            return Err(Error::new(Code::InvalidRequest, "an upload begins with Begin").into());
        };
        self.state().begins.push(begin.clone());
        let refusal = self.state().refusal.clone();
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        let too_large = || Status::from(Error::new(Code::TooLarge, "the file is too large"));
        if begin.at_least > MAX_FILE as u64 {
            return Err(too_large());
        }
        let known = begin.client_message_id.as_ref().and_then(|id| self.state().client_ids.get(id).cloned());
        if let Some(file) = known.and_then(|id| self.state().kept.get(&id).cloned()) {
            return Ok(Response::new(UploadResponse { file: Some(file.0), message: None, duplicate: true }));
        }
        self.state().under_way += 1;
        let _under_way = UnderWay(self.clone());
        let mut bytes = BytesMut::new();
        while let Some(message) = parts.message().await? {
            match message.part {
                Some(Part::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
                Some(Part::Finish(finish)) => return Ok(Response::new(self.keep(begin, finish, bytes.freeze()))),
                _ => return Err(Error::new(Code::InvalidRequest, "out of order").into()),
            }
            if bytes.len() > MAX_FILE {
                return Err(too_large());
            }
        }
        Err(Error::new(Code::InvalidRequest, "broken off").into())
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<File>, Status> {
        let ask = request.into_inner();
        Ok(Response::new(self.find(ask.reader, &ask.id)?.0))
    }

    type DownloadStream = BoxStream<'static, Result<DownloadResponse, Status>>;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let ask = request.into_inner();
        let (_, bytes) = self.find(ask.reader, &ask.id)?;
        let end = if ask.length == 0 { bytes.len() } else { bytes.len().min((ask.offset + ask.length) as usize) };
        let mut bytes = bytes.slice(ask.offset as usize..end);
        let breaks_after = self.state().breaks_after;
        let broken = breaks_after.filter(|after| *after < bytes.len()).map(|after| {
            bytes.truncate(after);
            Err(Status::from(Error::unavailable("the store")))
        });
        let chunks = bytes
            .chunks(1000)
            .map(|chunk| Ok(DownloadResponse { chunk: Bytes::copy_from_slice(chunk) }))
            .collect::<Vec<_>>();
        let files = self.clone();
        let begun = stream::once(async move {
            files.unless_stalled().await;
            stream::iter(chunks.into_iter().chain(broken))
        });
        Ok(Response::new(begun.flatten().boxed()))
    }

    async fn list_files(&self, request: Request<ListFilesRequest>) -> Result<Response<ListFilesResponse>, Status> {
        let ask = request.into_inner();
        let state = self.state();
        let files = state.kept.values().map(|(file, _)| file.clone()).filter(|file| file.room_id == ask.room_id);
        let files = files.take(ask.limit as usize).collect();
        Ok(Response::new(ListFilesResponse { files, next_cursor: ask.cursor }))
    }

    async fn delete_file(&self, request: Request<DeleteFileRequest>) -> Result<Response<DeleteFileResponse>, Status> {
        let removed = self.state().kept.remove(&request.into_inner().id);
        Ok(removed.map(|_| Response::new(DeleteFileResponse {})).ok_or_else(|| Error::not_found("file"))?)
    }

    async fn sign_link(&self, request: Request<SignLinkRequest>) -> Result<Response<Link>, Status> {
        let ask = request.into_inner();
        self.find(ask.reader, &ask.id)?;
        let expires_at_ms = jiff::Timestamp::now().as_millisecond() + 300_000;
        Ok(Response::new(Link { expires_at_ms, signature: "good".into() }))
    }

    async fn drop_files(&self, _: Request<DropFilesRequest>) -> Result<Response<DropFilesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn attach_files(&self, _: Request<AttachFilesRequest>) -> Result<Response<AttachFilesResponse>, Status> {
        Err(Error::new(Code::Forbidden, "the gateway never calls this").into())
    }
}

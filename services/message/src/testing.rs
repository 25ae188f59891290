//! The service with a scripted room service and a scripted file service, all in one process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use confab_common::bus::Bus;
use confab_common::grpc::{Services, Transport, in_process};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::{Code, Error, Secret, testing};
use confab_identity::{Callers, Guarded};
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1 as file;
use confab_proto::file::v1::file_service_server::{FileService, FileServiceServer};
use confab_proto::message::v1 as pb;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::room::v1 as room;
use confab_proto::room::v1::room_service_server::{RoomService, RoomServiceServer};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::store::Store;
use crate::store::sqlite::Sqlite;
use crate::{MessageConfig, Switch};

pub const PARTITIONS: u32 = 8;

/// A room service in which every user may post, with listed exceptions.
#[derive(Default)]
pub struct Rooms {
    pub unknown: Uuid,
    pub muted: Uuid,
    pub asked: AtomicUsize,
    pub down: AtomicBool,
}

/// The existing files.
#[derive(Default)]
pub struct Files {
    shelf: Mutex<HashMap<String, file::File>>,
    pub asked: AtomicUsize,
    pub down: AtomicBool,
    /// A write lock keeps the service from answering.
    pub gate: RwLock<()>,
}

impl Files {
    /// Counts a call, and lets it in once the gate is open.
    async fn admit(&self) -> Result<RwLockReadGuard<'_, ()>, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let open = self.gate.read().await;
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the file service"));
        }
        Ok(open)
    }

    /// Adds a new file, as an upload does.
    pub fn upload(&self, uploader: &UserRef, room: Option<Uuid>) -> file::File {
        let id = Uuid::now_v7().to_string();
        let file = file::File {
            name: format!("{id}.png"),
            size: 7,
            content_type: "image/png".into(),
            sha256: "0f".repeat(32),
            room_id: room.map(|room| room.to_string()),
            uploaded_by: Some(uploader.clone()),
            created_at_ms: 1_700_000_000_000,
            deleted: false,
            safe_inline: true,
            id: id.clone(),
        };
        self.shelf.lock().insert(id, file.clone());
        file
    }

    /// Removes a file, as a deletion does.
    pub fn delete(&self, id: &str) {
        self.shelf.lock().remove(id);
    }

    /// Returns whether a file exists.
    pub fn has(&self, id: &str) -> bool {
        self.shelf.lock().contains_key(id)
    }

    fn remove(&self, request: &file::DropFilesRequest) {
        let is_dropped =
            |file: &file::File| request.ids.contains(&file.id) && file.room_id.as_ref() == Some(&request.room_id);
        self.shelf.lock().retain(|_, file| !is_dropped(file));
    }

    fn attach(&self, request: &file::AttachFilesRequest) -> Result<Vec<file::File>, Error> {
        let mut shelf = self.shelf.lock();
        for id in &request.ids {
            let file = shelf.get(id).ok_or_else(|| Error::not_found("file"))?;
            match &file.room_id {
                None if file.uploaded_by != request.caller => return Err(Error::not_found("file")),
                Some(room) if *room != request.room_id => {
                    return Err(Error::new(Code::Conflict, "the file is in another room"));
                }
                _ => {}
            }
        }
        let attach = |id| {
            let file: &mut file::File = shelf.get_mut(id).unwrap();
            file.room_id = Some(request.room_id.clone());
            file.clone()
        };
        Ok(request.ids.iter().map(attach).collect())
    }
}

struct Server<T>(Arc<T>);

/// The answer to calls that the message service never makes.
fn not_called<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the message service does not call this"))
}

#[tonic::async_trait]
impl RoomService for Server<Rooms> {
    async fn check_access(&self, request: Request<room::CheckAccessRequest>) -> Result<Response<room::Access>, Status> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        if self.0.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the room service").into());
        }
        if request.room_id == self.0.unknown.to_string() {
            return Err(Error::not_found("room").into());
        }
        let may_post = request.user_id != self.0.muted.to_string();
        Ok(Response::new(room::Access { may_read: true, may_post, ..Default::default() }))
    }

    async fn check_rooms(
        &self,
        _: Request<room::CheckRoomsRequest>,
    ) -> Result<Response<room::CheckRoomsResponse>, Status> {
        not_called()
    }
    async fn create_room(&self, _: Request<room::CreateRoomRequest>) -> Result<Response<room::Room>, Status> {
        not_called()
    }
    async fn list_rooms(
        &self,
        _: Request<room::ListRoomsRequest>,
    ) -> Result<Response<room::ListRoomsResponse>, Status> {
        not_called()
    }
    async fn list_own_rooms(
        &self,
        _: Request<room::ListOwnRoomsRequest>,
    ) -> Result<Response<room::ListRoomsResponse>, Status> {
        not_called()
    }
    async fn get_room(&self, _: Request<room::GetRoomRequest>) -> Result<Response<room::Room>, Status> {
        not_called()
    }
    async fn update_room(&self, _: Request<room::UpdateRoomRequest>) -> Result<Response<room::Room>, Status> {
        not_called()
    }
    async fn delete_room(
        &self,
        _: Request<room::DeleteRoomRequest>,
    ) -> Result<Response<room::DeleteRoomResponse>, Status> {
        not_called()
    }
    async fn list_members(
        &self,
        _: Request<room::ListMembersRequest>,
    ) -> Result<Response<room::ListMembersResponse>, Status> {
        not_called()
    }
    async fn set_member(
        &self,
        _: Request<room::SetMemberRequest>,
    ) -> Result<Response<room::SetMemberResponse>, Status> {
        not_called()
    }
    async fn remove_member(
        &self,
        _: Request<room::RemoveMemberRequest>,
    ) -> Result<Response<room::RemoveMemberResponse>, Status> {
        not_called()
    }
    async fn remove_user(
        &self,
        _: Request<room::RemoveUserRequest>,
    ) -> Result<Response<room::RemoveUserResponse>, Status> {
        not_called()
    }
    async fn filter_acquaintances(
        &self,
        _: Request<room::FilterAcquaintancesRequest>,
    ) -> Result<Response<room::FilterAcquaintancesResponse>, Status> {
        not_called()
    }
}

#[tonic::async_trait]
impl FileService for Server<Files> {
    type DownloadStream = BoxStream<'static, Result<file::DownloadResponse, Status>>;

    async fn attach_files(
        &self,
        request: Request<file::AttachFilesRequest>,
    ) -> Result<Response<file::AttachFilesResponse>, Status> {
        let _open = self.0.admit().await?;
        let files = self.0.attach(&request.into_inner())?;
        Ok(Response::new(file::AttachFilesResponse { files }))
    }

    async fn drop_files(
        &self,
        request: Request<file::DropFilesRequest>,
    ) -> Result<Response<file::DropFilesResponse>, Status> {
        let _open = self.0.admit().await?;
        self.0.remove(&request.into_inner());
        Ok(Response::new(file::DropFilesResponse {}))
    }

    async fn upload(
        &self,
        _: Request<Streaming<file::UploadRequest>>,
    ) -> Result<Response<file::UploadResponse>, Status> {
        not_called()
    }
    async fn get_file(&self, _: Request<file::GetFileRequest>) -> Result<Response<file::File>, Status> {
        not_called()
    }
    async fn download(&self, _: Request<file::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        not_called()
    }
    async fn list_files(
        &self,
        _: Request<file::ListFilesRequest>,
    ) -> Result<Response<file::ListFilesResponse>, Status> {
        not_called()
    }
    async fn delete_file(
        &self,
        _: Request<file::DeleteFileRequest>,
    ) -> Result<Response<file::DeleteFileResponse>, Status> {
        not_called()
    }
    async fn sign_link(&self, _: Request<file::SignLinkRequest>) -> Result<Response<file::Link>, Status> {
        not_called()
    }
}

pub struct Fixture {
    pub client: MessageServiceClient<Transport>,
    pub rooms: Arc<Rooms>,
    pub files: Arc<Files>,
    pub bus: Bus,
    /// The file of the log.
    pub database: PathBuf,
}

impl Fixture {
    /// Starts the service with a new log.
    pub async fn new() -> Self {
        Self::over(testing::directory(), None).await
    }

    /// Starts the service with a new log; it verifies credentials with these callers, which have the keys of auth.
    pub async fn guarded(callers: Callers) -> Self {
        testing::eventually(|| callers.is_ready()).await;
        Self::unready(callers).await
    }

    /// As [`guarded`](Self::guarded), with callers that may not have the keys of auth.
    pub async fn unready(callers: Callers) -> Self {
        Self::over(testing::directory(), Some(callers)).await
    }

    /// Starts the service with a log of the first format, in which the room service has the rights.
    pub async fn former() -> Self {
        Self::of_format(1).await
    }

    /// Starts the service with a log of this format.
    pub async fn of_format(format: u32) -> Self {
        let directory = testing::directory();
        let path = directory.join("message.db");
        Sqlite::open(&path).unwrap().open_log(PARTITIONS).await.unwrap();
        rusqlite::Connection::open(&path).unwrap().execute("UPDATE log SET format = ?1", [format]).unwrap();
        while Sqlite::open(&path).is_err() {
            tokio::task::yield_now().await;
        }
        Self::over(directory, None).await
    }

    async fn over(data_dir: PathBuf, callers: Option<Callers>) -> Self {
        let rooms = Arc::new(Rooms { unknown: Uuid::now_v7(), muted: Uuid::now_v7(), ..Rooms::default() });
        let files = Arc::<Files>::default();
        let bus = Bus::open(&Secret::from("local:"), None).unwrap();
        let config = MessageConfig { message_store: None, partitions: PARTITIONS, search: Switch::On };
        let postgres = PostgresConfig { postgres_connections: 1, ..PostgresConfig::default() };
        let database = data_dir.join("message.db");
        let storage = StorageConfig { data_dir, postgres };
        let room = in_process(RoomServiceServer::new(Server(rooms.clone())));
        let file = in_process(FileServiceServer::new(Server(files.clone())));
        let services = Services { room, file, ..Services::none() };
        let log = crate::start(&config, &storage, bus.clone(), services, &Process::new()).await.unwrap();
        let server = match callers {
            Some(callers) => in_process(Guarded::new(log.server(), callers)),
            None => in_process(log.server()),
        };
        Self { client: MessageServiceClient::new(testing::patient(server)), rooms, files, bus, database }
    }

    /// Opens the rooms of these events, as the room service does before their first event, and appends the events.
    pub async fn append(&self, events: Vec<pb::NewEvent>) -> pb::AppendResponse {
        for event in &events {
            if event.room_id != self.rooms.unknown.to_string() {
                let request = pb::OpenRoomRequest { room_id: event.room_id.clone(), ..Default::default() };
                // A malformed id has no room.
                let _ = self.client.clone().open_room(request).await;
            }
        }
        self.client.clone().append(pb::AppendRequest { events, credentials: Vec::new() }).await.unwrap().into_inner()
    }

    /// Appends one event. Returns the event and whether it was in the log before, or the code and text of the
    /// rejection.
    pub async fn send(&self, event: pb::NewEvent) -> Result<(pb::Event, bool), (String, String)> {
        outcome(self.append(vec![event]).await.outcomes.remove(0))
    }

    pub async fn list(&self, request: pb::ListEventsRequest) -> Result<pb::ListEventsResponse, Error> {
        Ok(self.client.clone().list_events(request).await?.into_inner())
    }

    /// Returns all events of a room.
    pub async fn history(&self, room: Uuid) -> Vec<pb::Event> {
        let request =
            pb::ListEventsRequest { room_id: room.to_string(), after: Some(0), limit: 200, ..Default::default() };
        self.list(request).await.unwrap().events
    }
}

pub fn outcome(outcome: pb::Outcome) -> Result<(pb::Event, bool), (String, String)> {
    match outcome.result.unwrap() {
        pb::outcome::Result::Event(event) | pb::outcome::Result::Unchanged(event) => Ok((event, outcome.duplicate)),
        pb::outcome::Result::Refusal(refusal) => Err((refusal.code, refusal.detail)),
    }
}

/// Creates a message of a new sender.
pub fn message(room: Uuid, content: &str) -> pb::NewEvent {
    pb::NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: room.to_string(),
        kind: pb::Kind::Message.into(),
        sender: Some(UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() }),
        content: content.into(),
        timeout_ms: 60_000,
        ..pb::NewEvent::default()
    }
}

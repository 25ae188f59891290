//! The service from its callers' view: over its gRPC interface, with real stores, and scripted room and message
//! services.
#![allow(clippy::unwrap_used)]

mod deleting;
mod log;
mod outbox;
mod quota;
mod reading;
mod rooms;
mod uploading;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use confab_common::grpc::{Call, Services, Transport, in_process, request};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::{Error, Secret, testing};
use confab_file::FileConfig;
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::file_service_client::FileServiceClient;
use confab_proto::file::v1::upload_request::{Begin, Finish, Part};
use confab_proto::file::v1::*;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use uuid::Uuid;

use log::Log;
use rooms::Rooms;

/// The stores, which survive restarts, and the service's settings.
#[derive(Clone)]
struct Location {
    directory: PathBuf,
    url: Option<Secret>,
    flags: Vec<String>,
}

impl Location {
    fn sqlite() -> Self {
        Self { directory: testing::directory(), url: None, flags: Vec::new() }
    }

    async fn postgres() -> Self {
        Self { url: Some(testing::database().await), ..Self::sqlite() }
    }

    fn with<S: Into<String>>(self, flags: impl IntoIterator<Item = S>) -> Self {
        Self { flags: flags.into_iter().map(Into::into).collect(), ..self }
    }

    /// Returns the same location with the objects in a new bucket of the test run's S3 store, or of the store at
    /// another endpoint.
    fn on_s3(self, endpoint: Option<&str>) -> Self {
        let testing::S3 { endpoint: running, key, secret } = testing::s3();
        self.with([
            format!("--objects=s3://test-{}", Uuid::now_v7()),
            format!("--s3-endpoint={}", endpoint.unwrap_or(&running)),
            format!("--s3-access-key-id={key}"),
            format!("--s3-secret-access-key={}", secret.expose()),
        ])
    }

    /// Returns every file below the directory of objects, including temporary files but not the owner object.
    fn objects(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.directory.join("objects")]);
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with(".confab") {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// Settings from the command line
#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    file: FileConfig,
}

struct Service {
    process: Process,
    client: FileServiceClient<Transport>,
}

/// The scripted services and the clients.
#[derive(Default)]
struct World {
    rooms: Rooms,
    log: Log,
}

/// An upload as the gateway sends it.
#[derive(Clone)]
struct Sending {
    begin: Begin,
    bytes: Bytes,
    finish: Finish,
}

impl Sending {
    fn new(caller: &UserRef, name: &str, bytes: impl Into<Bytes>) -> Self {
        let begin = Begin { caller: Some(caller.clone()), name: name.into(), ..Begin::default() };
        Self { begin, bytes: bytes.into(), finish: Finish { timeout_ms: 60_000, ..Finish::default() } }
    }

    /// Sets the caller's timeout, in milliseconds.
    fn within(mut self, timeout_ms: u32) -> Self {
        self.finish.timeout_ms = timeout_ms;
        self
    }

    /// Sets the room in the first part.
    fn to(mut self, room: &str) -> Self {
        self.begin.room_id = Some(room.into());
        self
    }

    /// Sets the `clientMessageId`.
    fn called(mut self, client_message_id: &str) -> Self {
        self.begin.client_message_id = Some(client_message_id.into());
        self
    }

    fn parts(self) -> BoxStream<'static, UploadRequest> {
        let chunks =
            self.bytes.chunks(10_000).map(|chunk| Part::Chunk(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>();
        let parts = [Part::Begin(self.begin)].into_iter().chain(chunks).chain([Part::Finish(self.finish)]);
        stream::iter(parts.map(part).collect::<Vec<_>>()).boxed()
    }
}

fn part(part: Part) -> UploadRequest {
    UploadRequest { part: Some(part) }
}

impl Service {
    async fn start(location: &Location, world: &World) -> Self {
        let process = Process::new();
        let mut config = Settings::parse_from([String::new()].iter().chain(&location.flags)).file;
        config.file_store = location.url.clone();
        let postgres = PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() };
        let storage = StorageConfig { data_dir: location.directory.clone(), postgres };
        // A SQLite file is unlocked after the last task of the previous service has ended.
        let started = async || {
            let services =
                Services { room: world.rooms.transport(), message: world.log.transport(), ..Services::none() };
            let start = confab_file::start(&config, &storage, services, &process);
            start.await.ok()
        };
        let server = eventually(started).await;
        Self { process, client: FileServiceClient::new(testing::patient(in_process(server))) }
    }

    fn stop(self) {
        self.process.shutdown.cancel();
    }

    async fn upload(&self, sending: Sending) -> Result<UploadResponse, Error> {
        self.send(sending.parts()).await
    }

    async fn send(&self, parts: BoxStream<'static, UploadRequest>) -> Result<UploadResponse, Error> {
        Ok(self.client.clone().upload(request(parts, Call::streaming())).await?.into_inner())
    }

    /// Uploads and returns the file; the upload must succeed.
    async fn uploaded(&self, sending: Sending) -> File {
        self.upload(sending).await.unwrap().file.unwrap()
    }

    async fn get(&self, reader: Reader, id: &str) -> Result<File, Error> {
        let request = GetFileRequest { reader: Some(reader), id: id.into() };
        Ok(self.client.clone().get_file(request).await?.into_inner())
    }

    async fn download(&self, reader: Reader, id: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let request = DownloadRequest { reader: Some(reader), id: id.into(), offset, length };
        let chunks = self.client.clone().download(request).await?.into_inner();
        let bytes = chunks.try_fold(Vec::new(), async |mut bytes, answer| {
            bytes.extend_from_slice(&answer.chunk);
            Ok(bytes)
        });
        Ok(bytes.await?)
    }

    async fn list(
        &self,
        reader: Reader,
        room: Option<&str>,
        limit: u32,
        cursor: &str,
    ) -> Result<ListFilesResponse, Error> {
        let request =
            ListFilesRequest { reader: Some(reader), room_id: room.map(Into::into), limit, cursor: cursor.into() };
        Ok(self.client.clone().list_files(request).await?.into_inner())
    }

    /// Returns the ids of a caller's uploads.
    async fn uploads(&self, caller: &UserRef) -> Vec<String> {
        let page = self.list(by(caller), None, 200, "").await.unwrap();
        page.files.into_iter().map(|file| file.id).collect()
    }

    async fn delete(&self, caller: &UserRef, id: &str) -> Result<(), Error> {
        let request = DeleteFileRequest { caller: Some(caller.clone()), id: id.into(), moderator: false };
        self.client.clone().delete_file(request).await?;
        Ok(())
    }

    async fn sign(&self, reader: Reader, id: &str) -> Result<Link, Error> {
        let request = SignLinkRequest { reader: Some(reader), id: id.into() };
        Ok(self.client.clone().sign_link(request).await?.into_inner())
    }

    async fn attach(&self, caller: &UserRef, room: &str, ids: &[&str]) -> Result<Vec<File>, Error> {
        let ids = ids.iter().map(|id| id.to_string()).collect();
        let request = AttachFilesRequest { caller: Some(caller.clone()), room_id: room.into(), ids };
        Ok(self.client.clone().attach_files(request).await?.into_inner().files)
    }
}

/// Drops files as the message service does.
async fn dropped(service: &Service, room: &str, ids: &[&str]) -> Result<(), Error> {
    let ids = ids.iter().map(|id| id.to_string()).collect();
    service.client.clone().drop_files(DropFilesRequest { room_id: room.into(), ids }).await?;
    Ok(())
}

fn user(name: &str) -> UserRef {
    UserRef { id: Uuid::now_v7().to_string(), username: name.into() }
}

fn by(caller: &UserRef) -> Reader {
    Reader { reader: Some(reader::Reader::Caller(caller.clone())) }
}

fn bearer(link: &Link) -> Reader {
    Reader { reader: Some(reader::Reader::Link(link.clone())) }
}

fn anonymous() -> Reader {
    Reader { reader: None }
}

/// Repeats `ask` until it has an answer.
async fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the answer must arrive")
}

//! The service from its callers' view: over its gRPC interface, with a fake message service.
#![allow(clippy::unwrap_used)]

mod log;
mod outbox;
mod rules;

use std::path::PathBuf;
use std::time::Duration;

use confab_common::grpc::{Services, Transport, in_process};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::{Error, Secret, testing};
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1::room_service_client::RoomServiceClient;
use confab_proto::room::v1::*;
use confab_room::RoomConfig;
use uuid::Uuid;

use log::Log;

/// The location of the store, kept across restarts.
#[derive(Clone)]
struct Location {
    directory: PathBuf,
    url: Option<Secret>,
}

impl Location {
    fn sqlite() -> Self {
        Self { directory: testing::directory(), url: None }
    }

    async fn postgres() -> Self {
        Self { directory: testing::directory(), url: Some(testing::database().await) }
    }
}

struct Service {
    process: Process,
    client: RoomServiceClient<Transport>,
}

impl Service {
    async fn start(location: &Location, log: &Log) -> Self {
        let process = Process::new();
        let config = RoomConfig { room_store: location.url.clone() };
        let postgres = PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() };
        let storage = StorageConfig { data_dir: location.directory.clone(), postgres };
        let services = Services { message: log.transport(), ..Services::none() };
        // A SQLite file is unlocked after the last task of the previous service has ended.
        let server =
            eventually(async || confab_room::start(&config, &storage, services.clone(), &process).await.ok()).await;
        Self { process, client: RoomServiceClient::new(testing::patient(in_process(server))) }
    }

    /// Stops the service without a further call to the log.
    fn stop(self) {
        self.process.shutdown.cancel();
    }

    async fn create(&self, caller: &UserRef, name: &str) -> Result<Room, Error> {
        let request =
            CreateRoomRequest { caller: Some(caller.clone()), name: name.into(), ..CreateRoomRequest::default() };
        self.create_as(request).await
    }

    async fn create_as(&self, request: CreateRoomRequest) -> Result<Room, Error> {
        Ok(self.client.clone().create_room(request).await?.into_inner())
    }

    async fn list(&self, limit: u32, cursor: &str, query: &str) -> Result<ListRoomsResponse, Error> {
        let request = ListRoomsRequest { caller: None, limit, cursor: cursor.into(), query: query.into() };
        Ok(self.client.clone().list_rooms(request).await?.into_inner())
    }

    async fn get(&self, id: &str) -> Result<Room, Error> {
        Ok(self.client.clone().get_room(GetRoomRequest { caller: None, id: id.into() }).await?.into_inner())
    }

    async fn rename(&self, caller: &UserRef, id: &str, name: &str) -> Result<Room, Error> {
        self.update(UpdateRoomRequest {
            caller: Some(caller.clone()),
            id: id.into(),
            name: Some(name.into()),
            description: None,
        })
        .await
    }

    async fn update(&self, request: UpdateRoomRequest) -> Result<Room, Error> {
        Ok(self.client.clone().update_room(request).await?.into_inner())
    }

    async fn delete(&self, caller: &UserRef, id: &str) -> Result<(), Error> {
        let request = DeleteRoomRequest { caller: Some(caller.clone()), id: id.into() };
        self.client.clone().delete_room(request).await?;
        Ok(())
    }

    async fn access(&self, room: &str, user: &str) -> Result<Access, Error> {
        let request = CheckAccessRequest { room_id: room.into(), user_id: user.into() };
        Ok(self.client.clone().check_access(request).await?.into_inner())
    }
}

fn user(name: &str) -> UserRef {
    UserRef { id: Uuid::now_v7().to_string(), username: name.into() }
}

/// Repeats until there is an answer.
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

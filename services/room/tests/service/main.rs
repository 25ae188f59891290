//! The service from its callers' view: over its gRPC interface, with a fake message service.
#![allow(clippy::unwrap_used)]

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

/// Runs each of these tests on both stores.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Location::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Location::postgres().await).await })* }
    };
}

mod acquaintances;
mod log;
mod members;
mod moderating;
mod openings;
mod outbox;
mod own;
mod private;
mod quota;
mod removal;
mod repeats;
mod rules;

/// The location of the store, kept across restarts.
#[derive(Clone)]
struct Location {
    directory: PathBuf,
    url: Option<Secret>,
    max_rooms_per_user: u32,
}

impl Location {
    fn sqlite() -> Self {
        Self { directory: testing::directory(), url: None, max_rooms_per_user: 1000 }
    }

    async fn postgres() -> Self {
        Self { url: Some(testing::database().await), ..Self::sqlite() }
    }
}

struct Service {
    process: Process,
    client: RoomServiceClient<Transport>,
}

impl Service {
    async fn start(location: &Location, log: &Log) -> Self {
        let process = Process::new();
        let (room_store, max_rooms_per_user) = (location.url.clone(), location.max_rooms_per_user);
        let config = RoomConfig { room_store, max_rooms_per_user };
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

    async fn create_private(&self, caller: &UserRef, name: &str) -> Result<Room, Error> {
        let (caller, name, visibility) = (Some(caller.clone()), name.into(), Visibility::Private.into());
        self.create_as(CreateRoomRequest { caller, name, visibility, ..CreateRoomRequest::default() }).await
    }

    async fn create_as(&self, request: CreateRoomRequest) -> Result<Room, Error> {
        Ok(self.client.clone().create_room(request).await?.into_inner())
    }

    async fn list(&self, limit: u32, cursor: &str, query: &str) -> Result<ListRoomsResponse, Error> {
        let request = ListRoomsRequest { caller: None, limit, cursor: cursor.into(), query: query.into() };
        Ok(self.client.clone().list_rooms(request).await?.into_inner())
    }

    /// Returns the first page of rooms that a user finds.
    async fn found_by(&self, caller: &UserRef, query: &str) -> Vec<Room> {
        let (caller, query) = (Some(caller.clone()), query.into());
        let request = ListRoomsRequest { caller, limit: 50, cursor: String::new(), query };
        self.client.clone().list_rooms(request).await.unwrap().into_inner().rooms
    }

    async fn list_own(
        &self,
        caller: &UserRef,
        limit: u32,
        page: &str,
        query: &str,
    ) -> Result<ListRoomsResponse, Error> {
        let (caller, cursor, query) = (Some(caller.clone()), page.into(), query.into());
        let request = ListOwnRoomsRequest { caller, limit, cursor, query };
        Ok(self.client.clone().list_own_rooms(request).await?.into_inner())
    }

    async fn get(&self, id: &str) -> Result<Room, Error> {
        Ok(self
            .client
            .clone()
            .get_room(GetRoomRequest { id: id.into(), ..GetRoomRequest::default() })
            .await?
            .into_inner())
    }

    async fn get_as(&self, caller: &UserRef, id: &str) -> Result<Room, Error> {
        let request = GetRoomRequest { caller: Some(caller.clone()), id: id.into(), moderator: false };
        Ok(self.client.clone().get_room(request).await?.into_inner())
    }

    async fn rename(&self, caller: &UserRef, id: &str, name: &str) -> Result<Room, Error> {
        let (caller, id, name) = (Some(caller.clone()), id.into(), Some(name.into()));
        self.update(UpdateRoomRequest { caller, id, name, ..UpdateRoomRequest::default() }).await
    }

    async fn show(&self, caller: &UserRef, id: &str, visibility: Visibility) -> Result<Room, Error> {
        let (caller, id, visibility) = (Some(caller.clone()), id.into(), Some(visibility.into()));
        self.update(UpdateRoomRequest { caller, id, visibility, ..UpdateRoomRequest::default() }).await
    }

    async fn update(&self, request: UpdateRoomRequest) -> Result<Room, Error> {
        Ok(self.client.clone().update_room(request).await?.into_inner())
    }

    async fn delete(&self, caller: &UserRef, id: &str) -> Result<(), Error> {
        let request = DeleteRoomRequest { caller: Some(caller.clone()), id: id.into(), moderator: false };
        self.client.clone().delete_room(request).await?;
        Ok(())
    }

    async fn access(&self, room: &str, user: &str) -> Result<Access, Error> {
        let request = CheckAccessRequest { room_id: room.into(), user_id: user.into(), moderator: false };
        Ok(self.client.clone().check_access(request).await?.into_inner())
    }

    /// Sets a member. Returns the member's role and whether the member is new.
    async fn set(&self, caller: &UserRef, room: &str, user: &UserRef, role: Role) -> Result<(Role, bool), Error> {
        let (caller, room_id, user) = (Some(caller.clone()), room.into(), Some(user.clone()));
        let answer =
            self.set_as(SetMemberRequest { caller, room_id, user, role: role.into(), moderator: false }).await?;
        Ok((answer.member.unwrap().role(), answer.created))
    }

    async fn join(&self, user: &UserRef, room: &str) -> Result<(Role, bool), Error> {
        self.set(user, room, user, Role::Unspecified).await
    }

    async fn set_as(&self, request: SetMemberRequest) -> Result<SetMemberResponse, Error> {
        Ok(self.client.clone().set_member(request).await?.into_inner())
    }

    async fn remove(&self, caller: &UserRef, room: &str, user: &str) -> Result<(), Error> {
        let request = RemoveMemberRequest {
            caller: Some(caller.clone()),
            room_id: room.into(),
            user_id: user.into(),
            moderator: false,
        };
        self.client.clone().remove_member(request).await?;
        Ok(())
    }

    async fn list_members(
        &self,
        caller: Option<&UserRef>,
        room: &str,
        limit: u32,
        cursor: &str,
    ) -> Result<ListMembersResponse, Error> {
        let (caller, room_id, cursor) = (caller.cloned(), room.into(), cursor.into());
        let request = ListMembersRequest { caller, room_id, limit, cursor, moderator: false };
        Ok(self.client.clone().list_members(request).await?.into_inner())
    }

    /// Returns the roles of a room's members in the order of the list.
    async fn members(&self, caller: &UserRef, room: &str) -> Vec<(UserRef, Role)> {
        let page = self.list_members(Some(caller), room, 200, "").await.unwrap();
        assert_eq!(page.next_cursor, "");
        page.members.into_iter().map(|member| (member.user.clone().unwrap(), member.role())).collect()
    }

    /// Removes a user from up to 50 rooms. Returns whether the user is still in a room.
    async fn remove_user(&self, user: &UserRef) -> Result<bool, Error> {
        let request = RemoveUserRequest { user: Some(user.clone()), ..RemoveUserRequest::default() };
        Ok(self.client.clone().remove_user(request).await?.into_inner().more)
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

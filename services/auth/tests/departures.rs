//! A deleted user leaves all rooms.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use confab_common::grpc::{Services, in_process};
use confab_common::testing::{directory, eventually};
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use confab_proto::room::v1::room_service_server::{RoomService, RoomServiceServer};
use confab_proto::room::v1::*;
use parking_lot::Mutex;
use support::*;
use tonic::{Request, Response, Status};

const PASSWORD: &str = "correct horse";

async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Option<Code> {
    answer.await.err().map(|status| Error::from(status).code)
}

/// A room service from which a user is removed in three steps.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<(Vec<String>, Vec<RemoveUserRequest>)>>);

#[tonic::async_trait]
impl RoomService for Rooms {
    async fn remove_user(&self, request: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        let (candidates, calls) = &mut *self.0.lock();
        calls.push(request.into_inner());
        match calls.len() {
            1 => Err(Status::unavailable("not now")),
            // Two candidates for the ownership of a room, once.
            count => Ok(Response::new(RemoveUserResponse { more: count < 4, candidates: std::mem::take(candidates) })),
        }
    }

    async fn create_room(&self, _: Request<CreateRoomRequest>) -> Result<Response<Room>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_rooms(&self, _: Request<ListRoomsRequest>) -> Result<Response<ListRoomsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_own_rooms(&self, _: Request<ListOwnRoomsRequest>) -> Result<Response<ListRoomsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn filter_acquaintances(
        &self,
        _: Request<FilterAcquaintancesRequest>,
    ) -> Result<Response<FilterAcquaintancesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn get_room(&self, _: Request<GetRoomRequest>) -> Result<Response<Room>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn update_room(&self, _: Request<UpdateRoomRequest>) -> Result<Response<Room>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn delete_room(&self, _: Request<DeleteRoomRequest>) -> Result<Response<DeleteRoomResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn check_access(&self, _: Request<CheckAccessRequest>) -> Result<Response<Access>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn check_rooms(&self, _: Request<CheckRoomsRequest>) -> Result<Response<CheckRoomsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn set_member(&self, _: Request<SetMemberRequest>) -> Result<Response<SetMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn remove_member(&self, _: Request<RemoveMemberRequest>) -> Result<Response<RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}

#[tokio::test]
async fn a_deleted_user_leaves_all_rooms_and_a_tombstone() {
    let (data_dir, bus, rooms) = (directory(), bus(), Rooms::default());
    // Without a room service, the removal waits.
    let (mut client, process) = start(data_dir.clone(), bus.clone()).await;
    let session = signup(&mut client, "", "Ada", PASSWORD).await.unwrap();
    let bob = support::user_id(&signup(&mut client, "", "bob", PASSWORD).await.unwrap());
    let cleo = support::user_id(&signup(&mut client, "", "cleo", PASSWORD).await.unwrap());
    client.suspend_user(call(SuspendUserRequest { user_id: cleo.clone(), actor: None })).await.unwrap();
    rooms.0.lock().0 = vec![bob.clone(), cleo.clone()];
    let user_id = user_id(&session);
    let delete = |password: &str| {
        let (user_id, password) = (user_id.clone(), password.into());
        call(DeleteAccountRequest { user_id, password, client_address: String::new() })
    };
    assert_eq!(code(client.delete_account(delete("wrong horse"))).await, Some(Code::Forbidden));
    let ended = client.delete_account(delete(PASSWORD)).await.unwrap().into_inner().revocations;
    assert_eq!(
        ended.iter().map(RevocationRef::of).collect::<Vec<_>>(),
        [(RevocationKind::Unspecified, session_id(&session)), (RevocationKind::Blocked, user_id.clone()),]
    );
    assert_eq!(code(client.delete_account(delete(PASSWORD))).await, Some(Code::NotFound));
    let again = client
        .delete_user(call(DeleteUserRequest { user_id: user_id.clone(), actor: None }))
        .await
        .unwrap()
        .into_inner();
    assert!(again.revocations.is_empty());
    let by_id = GetUserRequest { id: user_id.clone(), username: String::new() };
    let shown = client.get_user(call(by_id.clone())).await.unwrap().into_inner();
    assert_eq!((shown.username.as_str(), shown.state()), ("deleted", AccountState::Deleted));
    let by_name = GetUserRequest { id: String::new(), username: "ada".into() };
    assert_eq!(code(client.get_user(call(by_name))).await, Some(Code::NotFound));
    assert_eq!(login(&mut client, "Ada", PASSWORD).await.unwrap_err().code, Code::InvalidCredentials);
    assert_eq!(signup(&mut client, "", "ada", PASSWORD).await.unwrap_err().code, Code::UsernameTaken);
    assert_eq!(signup(&mut client, &user_id, "Ada", PASSWORD).await.unwrap_err().code, Code::Conflict);
    let restore = RestoreUserRequest { user_id: user_id.clone(), actor: None };
    assert_eq!(code(client.restore_user(call(restore))).await, Some(Code::Conflict));
    drop(client);
    process.shutdown.cancel();

    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM leaving"), 1);
    let services = Services { room: in_process(RoomServiceServer::new(rooms.clone())), ..Services::none() };
    // 30 days later.
    assert_eq!(database.execute("UPDATE users SET free_name_at_ms = 1 WHERE free_name_at_ms > 0", []).unwrap(), 1);
    let (mut client, _process) = restart(data_dir, bus, services).await;
    eventually(|| count("SELECT count(*) FROM leaving") == 0).await;
    let user = UserRef { id: user_id.clone(), username: "Ada".into() };
    let calls = rooms.0.lock().1.clone();
    let removed = calls.iter().map(|call| call.user.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(removed, vec![user; 4], "repeated until the user is in no room");
    let looked_up = calls.iter().map(|call| (call.active.clone(), call.inactive.clone())).collect::<Vec<_>>();
    let none = (Vec::new(), Vec::new());
    assert_eq!(looked_up, [none.clone(), none.clone(), (vec![bob], vec![cleo]), none]);
    eventually(|| count("SELECT count(*) FROM users WHERE free_name_at_ms IS NOT NULL") == 0).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    assert_eq!(client.get_user(call(by_id)).await.unwrap().into_inner(), shown);
    let blocked = revocations(&mut client)
        .await
        .into_iter()
        .any(|entry| entry.kind() == RevocationKind::Blocked && entry.user_id == user_id);
    assert!(blocked, "for ever");
}

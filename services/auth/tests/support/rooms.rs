//! A room service for the tests of the auth service.

use std::sync::Arc;

use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1::room_service_server::RoomService;
use confab_proto::room::v1::*;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// A room service from which a user is removed in three steps.
#[derive(Clone, Default)]
pub struct Rooms(pub Arc<Mutex<Vec<UserRef>>>);

#[tonic::async_trait]
impl RoomService for Rooms {
    async fn remove_user(&self, request: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        let mut removed = self.0.lock();
        removed.push(request.into_inner().user.unwrap());
        match removed.len() {
            1 => Err(Status::unavailable("not now")),
            count => Ok(Response::new(RemoveUserResponse { more: count < 4 })),
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

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn set_member(&self, _: Request<SetMemberRequest>) -> Result<Response<SetMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn remove_member(&self, _: Request<RemoveMemberRequest>) -> Result<Response<RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn filter_acquaintances(
        &self,
        _: Request<FilterAcquaintancesRequest>,
    ) -> Result<Response<FilterAcquaintancesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}

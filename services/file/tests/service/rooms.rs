//! A fake room service with rooms and members, which can be made unreachable.

use std::collections::HashMap;
use std::sync::Arc;

use confab_common::grpc::{Transport, in_process};
use confab_proto::room::v1::room_service_server::{RoomService, RoomServiceServer};
use confab_proto::room::v1::*;
use parking_lot::{Mutex, MutexGuard};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The members of a room and their permissions.
#[derive(Clone, Default)]
struct Members {
    /// The permissions of all other users.
    others: Access,
    members: HashMap<String, Access>,
}

#[derive(Default)]
struct State {
    away: bool,
    /// Of the previous release, without `CheckRooms`.
    old: bool,
    rooms: HashMap<String, Members>,
}

#[derive(Clone, Default)]
pub struct Rooms(Arc<Mutex<State>>);

pub const READ: Access = Access { may_read: true, may_post: false, may_manage: false, private: false };
pub const POST: Access = Access { may_read: true, may_post: true, may_manage: false, private: false };
const MODERATE: Access = Access { may_read: true, may_post: false, may_manage: true, private: true };
pub const MANAGE: Access = Access { may_read: true, may_post: true, may_manage: true, private: false };

impl Rooms {
    pub fn transport(&self) -> Transport {
        in_process(RoomServiceServer::new(self.clone()))
    }

    /// Creates a room with these members' permissions, and `others` for all other users.
    pub fn make<'a>(&self, members: impl IntoIterator<Item = (&'a str, Access)>, others: Access) -> String {
        let id = Uuid::now_v7().to_string();
        let members = members.into_iter().map(|(user, access)| (user.to_owned(), access)).collect();
        self.state().rooms.insert(id.clone(), Members { others, members });
        id
    }

    /// Creates a room in which every user may post.
    pub fn public(&self) -> String {
        self.make([("", READ)], POST)
    }

    /// Creates a room that is visible only to its members.
    pub fn private<'a>(&self, members: impl IntoIterator<Item = (&'a str, Access)>) -> String {
        let members = members.into_iter().map(|(user, access)| (user, Access { private: true, ..access }));
        self.make(members, Access::default())
    }

    /// Removes a member of a private room.
    pub fn remove(&self, room: &str, user: &str) {
        self.state().rooms.get_mut(room).and_then(|room| room.members.remove(user));
    }

    pub fn delete(&self, room: &str) {
        self.state().rooms.remove(room);
    }

    pub fn is_away(&self, away: bool) {
        self.state().away = away;
    }

    /// Makes the service one of the previous release, which does not have `CheckRooms`.
    pub fn is_old(&self, old: bool) {
        self.state().old = old;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

#[tonic::async_trait]
impl RoomService for Rooms {
    async fn check_access(&self, request: Request<CheckAccessRequest>) -> Result<Response<Access>, Status> {
        let state = self.state();
        if state.away {
            return Err(Status::unavailable("away"));
        }
        let CheckAccessRequest { room_id, user_id, moderator } = request.into_inner();
        if moderator {
            let exists = state.rooms.contains_key(&room_id);
            return if exists { Ok(Response::new(MODERATE)) } else { Err(Status::not_found("no such room")) };
        }
        let room = state.rooms.get(&room_id).cloned().unwrap_or_default();
        let access = room.members.get(&user_id).copied().unwrap_or(room.others);
        if access.may_read { Ok(Response::new(access)) } else { Err(confab_common::Error::not_found("room").into()) }
    }

    async fn check_rooms(&self, request: Request<CheckRoomsRequest>) -> Result<Response<CheckRoomsResponse>, Status> {
        let state = self.state();
        if state.away {
            return Err(Status::unavailable("away"));
        }
        if state.old {
            return Err(Status::unimplemented("unknown method"));
        }
        let CheckRoomsRequest { mut room_ids, user_id } = request.into_inner();
        room_ids.retain(|id| {
            let room = state.rooms.get(id).cloned().unwrap_or_default();
            room.members.get(&user_id).copied().unwrap_or(room.others).may_read
        });
        Ok(Response::new(CheckRoomsResponse { room_ids }))
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

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn set_member(&self, _: Request<SetMemberRequest>) -> Result<Response<SetMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn remove_member(&self, _: Request<RemoveMemberRequest>) -> Result<Response<RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn remove_user(&self, _: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn filter_acquaintances(
        &self,
        _: Request<FilterAcquaintancesRequest>,
    ) -> Result<Response<FilterAcquaintancesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}

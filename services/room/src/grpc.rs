//! Converts gRPC requests to domain calls, and results back to gRPC.

use confab_common::{Code, Error, Result, text};
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1 as pb;
use confab_proto::room::v1::room_service_server::RoomService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::service::{Access, Change, Rooms};
use crate::store::{Room, User};

pub struct RoomApi(Rooms);

impl RoomApi {
    pub(crate) fn new(rooms: Rooms) -> Self {
        Self(rooms)
    }
}

#[tonic::async_trait]
impl RoomService for RoomApi {
    async fn create_room(&self, request: Request<pb::CreateRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = request.into_inner();
        if request.visibility() == pb::Visibility::Private {
            return Err(Error::field("visibility", "must be public: private rooms are not available yet").into());
        }
        let caller = required(request.caller)?;
        let id = if request.id.is_empty() { Uuid::now_v7() } else { text::id("id", &request.id)? };
        let room = self.0.create(id, caller.clone(), &request.name, &request.description).await?;
        Ok(Response::new(shown(room, Some(&caller))))
    }

    async fn list_rooms(
        &self,
        request: Request<pb::ListRoomsRequest>,
    ) -> Result<Response<pb::ListRoomsResponse>, Status> {
        let request = request.into_inner();
        let caller = optional(request.caller)?;
        let page = self
            .0
            .list(caller.as_ref().map(|caller| caller.id), request.limit, &request.cursor, &request.query)
            .await?;
        let rooms = page.rooms.into_iter().map(|room| shown(room, caller.as_ref())).collect();
        Ok(Response::new(pb::ListRoomsResponse { rooms, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn get_room(&self, request: Request<pb::GetRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = request.into_inner();
        let caller = optional(request.caller)?;
        Ok(Response::new(shown(self.0.get(room_id(&request.id)?).await?, caller.as_ref())))
    }

    async fn update_room(&self, request: Request<pb::UpdateRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = request.into_inner();
        let caller = required(request.caller)?;
        let change = Change { name: request.name, description: request.description };
        let room = self.0.update(room_id(&request.id)?, &caller, change).await?;
        Ok(Response::new(shown(room, Some(&caller))))
    }

    async fn delete_room(
        &self,
        request: Request<pb::DeleteRoomRequest>,
    ) -> Result<Response<pb::DeleteRoomResponse>, Status> {
        let request = request.into_inner();
        self.0.delete(room_id(&request.id)?, &required(request.caller)?).await?;
        Ok(Response::new(pb::DeleteRoomResponse {}))
    }

    async fn check_access(&self, request: Request<pb::CheckAccessRequest>) -> Result<Response<pb::Access>, Status> {
        let request = request.into_inner();
        let user = if request.user_id.is_empty() { None } else { Some(text::id("userId", &request.user_id)?) };
        let Access { may_read, may_post, may_manage } = self.0.access(room_id(&request.room_id)?, user).await?;
        Ok(Response::new(pb::Access { may_read, may_post, may_manage }))
    }
}

/// Parses a room's id; a malformed id is `not_found`, like an unknown id.
fn room_id(id: &str) -> Result<Uuid> {
    text::id("id", id).map_err(|_| Error::not_found("room"))
}

fn optional(caller: Option<UserRef>) -> Result<Option<User>> {
    let Some(UserRef { id, username }) = caller else { return Ok(None) };
    text::no_nul("caller.username", &username)?;
    Ok(Some(User { id: text::id("caller.id", &id)?, username }))
}

fn required(caller: Option<UserRef>) -> Result<User> {
    optional(caller)?.ok_or_else(|| Error::new(Code::Unauthorized, "a token is required"))
}

fn shown(room: Room, caller: Option<&User>) -> pb::Room {
    let role = match caller {
        Some(caller) if caller.id == room.owner.id => pb::Role::Owner,
        _ => pb::Role::Unspecified,
    };
    pb::Room {
        id: room.id.to_string(),
        name: room.name,
        description: room.description,
        visibility: pb::Visibility::Public.into(),
        role: role.into(),
        created_by: Some(UserRef { id: room.owner.id.to_string(), username: room.owner.username }),
        created_at_ms: room.created_at_ms,
    }
}

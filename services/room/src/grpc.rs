//! Converts gRPC requests to domain calls, and results back to gRPC.

use std::collections::HashSet;

use confab_common::grpc::operation;
use confab_common::{Code, Error, Result, text};
use confab_identity::verified;
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1 as pb;
use confab_proto::room::v1::room_service_server::RoomService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::departures::{LookedUp, Progress};
use crate::service::{Access, Author, Change, NewRoom, Rooms, Viewer};
use crate::store::{Member, Role, Seen, User};

/// Maximum users that a caller of `RemoveUser` has looked up.
const MAX_LOOKED_UP: usize = 1000;

pub struct RoomApi(Rooms);

impl RoomApi {
    pub(crate) fn new(rooms: Rooms) -> Self {
        Self(rooms)
    }
}

#[tonic::async_trait]
impl RoomService for RoomApi {
    async fn create_room(&self, request: Request<pb::CreateRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = verified(request)?;
        let private = is_private(request.visibility)?;
        let caller = required(request.caller)?;
        let id = if request.id.is_empty() { Uuid::now_v7() } else { text::id("id", &request.id)? };
        let new = NewRoom { id, name: request.name, description: request.description, private };
        Ok(Response::new(shown(self.0.create(new, caller).await?)))
    }

    async fn list_rooms(
        &self,
        request: Request<pb::ListRoomsRequest>,
    ) -> Result<Response<pb::ListRoomsResponse>, Status> {
        let request = verified(request)?;
        let caller = reader(request.caller)?;
        let page = self.0.list(caller, request.limit, &request.cursor, &request.query).await?;
        let rooms = page.rooms.into_iter().map(shown).collect();
        Ok(Response::new(pb::ListRoomsResponse { rooms, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn list_own_rooms(
        &self,
        request: Request<pb::ListOwnRoomsRequest>,
    ) -> Result<Response<pb::ListRoomsResponse>, Status> {
        let request = verified(request)?;
        let caller = required(request.caller)?;
        let page = self.0.list_own(caller.id, request.limit, &request.cursor, &request.query).await?;
        let rooms = page.rooms.into_iter().map(shown).collect();
        Ok(Response::new(pb::ListRoomsResponse { rooms, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn get_room(&self, request: Request<pb::GetRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = verified(request)?;
        let viewer = viewer(request.caller, request.moderator)?;
        Ok(Response::new(shown(self.0.get(room_id(&request.id)?, viewer).await?)))
    }

    async fn update_room(&self, request: Request<pb::UpdateRoomRequest>) -> Result<Response<pb::Room>, Status> {
        let request = verified(request)?;
        let author = author(request.caller, request.moderator)?;
        let private = request.visibility.map(is_private).transpose()?;
        let change = Change { name: request.name, description: request.description, private };
        Ok(Response::new(shown(self.0.update(room_id(&request.id)?, &author, change).await?)))
    }

    async fn delete_room(
        &self,
        request: Request<pb::DeleteRoomRequest>,
    ) -> Result<Response<pb::DeleteRoomResponse>, Status> {
        let (operation, request) = (operation(&request), verified(request)?);
        let author = author(request.caller, request.moderator)?;
        self.0.delete(room_id(&request.id)?, &author, operation).await?;
        Ok(Response::new(pb::DeleteRoomResponse {}))
    }

    async fn check_access(&self, request: Request<pb::CheckAccessRequest>) -> Result<Response<pb::Access>, Status> {
        let request = request.into_inner();
        let viewer = match request.user_id.as_str() {
            _ if request.moderator => Viewer::Moderator,
            "" => Viewer::Anonymous,
            id => Viewer::User(text::id("userId", id)?),
        };
        let Access { may_read, may_post, may_manage, private } =
            self.0.access(room_id(&request.room_id)?, viewer).await?;
        Ok(Response::new(pb::Access { may_read, may_post, may_manage, private }))
    }

    async fn check_rooms(
        &self,
        request: Request<pb::CheckRoomsRequest>,
    ) -> Result<Response<pb::CheckRoomsResponse>, Status> {
        let pb::CheckRoomsRequest { room_ids, user_id } = request.into_inner();
        let ids = room_ids.iter().map(|id| text::id("roomIds", id)).collect::<Result<Vec<_>>>()?;
        let visible = self.0.visible(ids, text::id("userId", &user_id)?).await?;
        Ok(Response::new(pb::CheckRoomsResponse { room_ids: visible.iter().map(Uuid::to_string).collect() }))
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let request = verified(request)?;
        let viewer = viewer(request.caller, request.moderator)?;
        let page = self.0.list_members(room_id(&request.room_id)?, viewer, request.limit, &request.cursor).await?;
        let members = page.members.into_iter().map(member).collect();
        Ok(Response::new(pb::ListMembersResponse { members, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn set_member(
        &self,
        request: Request<pb::SetMemberRequest>,
    ) -> Result<Response<pb::SetMemberResponse>, Status> {
        let request = verified(request)?;
        let author = author(request.caller, request.moderator)?;
        let user = user("user", request.user)?;
        let role = wanted_role(request.role)?;
        let (set, created) = self.0.set_member(room_id(&request.room_id)?, &author, user, role).await?;
        Ok(Response::new(pb::SetMemberResponse { member: Some(member(set)), created }))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Result<Response<pb::RemoveMemberResponse>, Status> {
        let (operation, request) = (operation(&request), verified(request)?);
        let author = author(request.caller, request.moderator)?;
        let user = text::id("userId", &request.user_id).ok();
        self.0.remove_member(room_id(&request.room_id)?, &author, user, operation).await?;
        Ok(Response::new(pb::RemoveMemberResponse {}))
    }

    async fn remove_user(
        &self,
        request: Request<pb::RemoveUserRequest>,
    ) -> Result<Response<pb::RemoveUserResponse>, Status> {
        let pb::RemoveUserRequest { user: of, looks_up_heirs, active, inactive } = request.into_inner();
        let user = user("user", of)?.ok_or_else(|| Error::field("user", "must be given"))?;
        let looked_up = LookedUp { active: ids("active", &active)?, inactive: ids("inactive", &inactive)? };
        let looked_up = Some(looked_up).filter(|_| looks_up_heirs);
        let Progress { more, candidates } = self.0.departures.remove_user(&user, looked_up.as_ref()).await?;
        let candidates = candidates.iter().map(Uuid::to_string).collect();
        Ok(Response::new(pb::RemoveUserResponse { more, candidates }))
    }

    async fn filter_acquaintances(
        &self,
        request: Request<pb::FilterAcquaintancesRequest>,
    ) -> Result<Response<pb::FilterAcquaintancesResponse>, Status> {
        let pb::FilterAcquaintancesRequest { user_id, other_ids } = verified(request)?;
        let user = text::id("userId", &user_id)?;
        let others = other_ids.iter().map(|id| text::id("otherIds", id)).collect::<Result<Vec<_>>>()?;
        let found = self.0.acquaintances(user, others).await?;
        Ok(Response::new(pb::FilterAcquaintancesResponse { other_ids: found.iter().map(Uuid::to_string).collect() }))
    }
}

/// Parses a room's id; a malformed id is `not_found`, like an unknown id.
fn room_id(id: &str) -> Result<Uuid> {
    text::id("id", id).map_err(|_| Error::not_found("room"))
}

fn ids(field: &str, ids: &[String]) -> Result<HashSet<Uuid>> {
    if ids.len() > MAX_LOOKED_UP {
        return Err(Error::field(field, format!("must be at most {MAX_LOOKED_UP}")));
    }
    ids.iter().map(|id| text::id(field, id)).collect()
}

fn user(field: &str, user: Option<UserRef>) -> Result<Option<User>> {
    let Some(UserRef { id, username }) = user else { return Ok(None) };
    text::no_nul(&format!("{field}.username"), &username)?;
    Ok(Some(User { id: text::id(&format!("{field}.id"), &id)?, username }))
}

fn reader(caller: Option<UserRef>) -> Result<Option<Uuid>> {
    Ok(user("caller", caller)?.map(|caller| caller.id))
}

fn viewer(caller: Option<UserRef>, is_moderator: bool) -> Result<Viewer> {
    if is_moderator {
        return Ok(Viewer::Moderator);
    }
    Ok(reader(caller)?.map_or(Viewer::Anonymous, Viewer::User))
}

fn author(caller: Option<UserRef>, is_moderator: bool) -> Result<Author> {
    Ok(Author { user: required(caller)?, is_moderator })
}

fn required(caller: Option<UserRef>) -> Result<User> {
    user("caller", caller)?.ok_or_else(|| Error::new(Code::Unauthorized, "a token is required"))
}

fn is_private(visibility: i32) -> Result<bool> {
    match pb::Visibility::try_from(visibility) {
        Ok(pb::Visibility::Private) => Ok(true),
        Ok(pb::Visibility::Public | pb::Visibility::Unspecified) => Ok(false),
        Err(_) => Err(Error::field("visibility", "must be public or private")),
    }
}

fn wanted_role(role: i32) -> Result<Option<Role>> {
    match pb::Role::try_from(role) {
        Ok(pb::Role::Unspecified) => Ok(None),
        Ok(pb::Role::Member) => Ok(Some(Role::Member)),
        Ok(pb::Role::Admin) => Ok(Some(Role::Admin)),
        Ok(pb::Role::Owner) => Ok(Some(Role::Owner)),
        Err(_) => Err(Error::field("role", "must be member, admin or owner")),
    }
}

fn shown(seen: Seen) -> pb::Room {
    let Seen { room, role } = seen;
    let visibility = if room.private { pb::Visibility::Private } else { pb::Visibility::Public };
    pb::Room {
        id: room.id.to_string(),
        name: room.name,
        description: room.description,
        visibility: visibility.into(),
        role: role.map_or(pb::Role::Unspecified, shown_role).into(),
        created_by: Some(user_ref(room.creator)),
        created_at_ms: room.created_at_ms,
    }
}

fn member(member: Member) -> pb::Member {
    let Member { user, role, joined_at_ms } = member;
    pb::Member { user: Some(user_ref(user)), role: shown_role(role).into(), joined_at_ms }
}

fn user_ref(user: User) -> UserRef {
    UserRef { id: user.id.to_string(), username: user.username }
}

fn shown_role(role: Role) -> pb::Role {
    match role {
        Role::Member => pb::Role::Member,
        Role::Admin => pb::Role::Admin,
        Role::Owner => pb::Role::Owner,
    }
}

//! Members of rooms.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::Error;
use confab_common::grpc::request;
use confab_proto::room::v1::{ListMembersRequest, RemoveMemberRequest, Role, SetMemberRequest};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Deadline;
use super::extract::{Actor, OptionalJson, Params, Reader, RoomId, Turns, by};
use super::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use super::openapi::{examples, params};
use super::reading::hidden_room;
use super::rooms::check_change;
use super::users::{UserPath, resolve_id, resolve_user};
use crate::App;
use crate::limits::RequestLimits;
use crate::problem::Problem;
use crate::views::{MemberJson, Page, RoleJson};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(set, remove))
}

/// A member to add or to change.
#[derive(Deserialize, ToSchema)]
struct MemberChange {
    /// If it is left out, a new member gets the role `member`, and an existing member keeps its role.
    #[schema(value_type = Option<RoleJson>)]
    role: Option<String>,
}

impl MemberChange {
    fn role(&self) -> Result<Role, Error> {
        match self.role.as_deref() {
            None => Ok(Role::Unspecified),
            Some("member") => Ok(Role::Member),
            Some("admin") => Ok(Role::Admin),
            Some("owner") => Ok(Role::Owner),
            Some(_) => Err(Error::field("role", "must be owner, admin or member")),
        }
    }
}

/// List the members of a room
///
/// Lists the owner, then the admins, then the members, each in the order in which they joined.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/members",
    operation_id = "list_members",
    tag = "Rooms",
    params(params::Room, params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of members", body = Page<MemberJson>,
            example = json!(examples::members())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let list = ListMembersRequest {
        moderator: reader.as_ref().is_some_and(Actor::is_moderator),
        caller: reader.as_ref().map(Actor::caller),
        room_id: room.to_string(),
        limit: params.limit()?,
        cursor: params.cursor()?,
    };
    let _turn = turns.next().await?;
    let page = app
        .clients
        .room
        .clone()
        .list_members(by(reader.as_ref(), request(list, app.clients.read)))
        .await
        .map_err(hidden_room)?;
    let mut page = page.into_inner();
    // A deleted user leaves the room after the deletion.
    page.members.iter_mut().for_each(|member| app.clients.deleted.hide_in(&mut member.user));
    let items = page.members.iter().map(MemberJson::try_from).collect::<Result<_, _>>()?;
    Ok(Answer(Page { items, next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()) }).into_response())
}

/// Add a member or change a role
///
/// Users may add themselves to a public room. The owner and admins may add users, and give and take the roles `admin`
/// and `member`; they cannot change the owner's role. The owner may pass the room on with the role `owner`, and becomes
/// an admin. Members of a private room see its whole history. Any user can be added by the exact id or username, also
/// one that `GET /api/users` does not list; each request that names another user counts as a look-up of users. Other
/// users can add a user to at most half of the rooms that a user may be in (`CONFAB_MAX_ROOMS_PER_USER`); further
/// requests receive 409 `conflict`.
#[utoipa::path(
    put,
    path = "/api/rooms/{roomId}/members/{userId}",
    operation_id = "set_member",
    tag = "Rooms",
    params(params::Room, params::User),
    request_body(content = Option<MemberChange>, example = json!({"role": "admin"})),
    responses(
        (status = 201, description = "The user is a new member", body = MemberJson,
            example = json!(examples::member(Role::Member))),
        (status = 200, description = "The user was a member before", body = MemberJson,
            example = json!(examples::member(Role::Admin))),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn set(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    user: UserPath,
    limits: RequestLimits,
    OptionalJson(change): OptionalJson<MemberChange>,
) -> Result<Response, Problem> {
    let role = change.role()?;
    check_change(&limits, &actor).await?;
    let deadline = Deadline::of(&app);
    // The room service rejects an unknown user after all checks of the room.
    let user = resolve_user(&app, &deadline, &limits, actor.user(), &user).await?;
    let details = json!({"userId": user.as_ref().map(|user| &user.id), "role": change.role});
    actor.recorded(&app, "member.set", room, details).await?;
    let (caller, room_id, moderator) = (Some(actor.caller()), room.to_string(), actor.is_moderator());
    let set = SetMemberRequest { caller, room_id, user, role: role.into(), moderator };
    let set = app.clients.room.clone().set_member(actor.credential().attach(deadline.request(set))).await?.into_inner();
    let member = set.member.ok_or_else(|| Error::internal("an answer without a member"))?;
    let status = if set.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(MemberJson::try_from(&member)?)).into_response())
}

/// Remove a member
///
/// The owner and admins may remove members, and members may remove themselves. The owner cannot be removed. A member
/// named by `@username` counts as a look-up of users. In a private room, the event `memberLeft` is the last event of the
/// room that the user's sockets receive.
#[utoipa::path(
    delete,
    path = "/api/rooms/{roomId}/members/{userId}",
    operation_id = "remove_member",
    tag = "Rooms",
    params(params::Room, params::User),
    responses(
        (status = 204, description = "The user is not a member any more"),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn remove(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    user: UserPath,
    limits: RequestLimits,
) -> Result<StatusCode, Problem> {
    check_change(&limits, &actor).await?;
    let deadline = Deadline::of(&app);
    let user_id = resolve_id(&app, &deadline, &limits, actor.user(), &user).await?;
    actor.recorded(&app, "member.remove", room, json!({"userId": user_id})).await?;
    let (caller, room_id, moderator) = (Some(actor.caller()), room.to_string(), actor.is_moderator());
    let remove = RemoveMemberRequest { caller, room_id, user_id, moderator };
    app.clients.room.clone().remove_member(actor.credential().attach(deadline.once(remove))).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests;

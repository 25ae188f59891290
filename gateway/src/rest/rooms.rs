//! Rooms.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::message::v1::{GetRoomHeadsRequest, Marker};
use confab_proto::room::v1::{
    CreateRoomRequest, DeleteRoomRequest, ListOwnRoomsRequest, ListRoomsRequest, Role, UpdateRoomRequest, Visibility,
};
use confab_socketio::net::ClientAddress;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Deadline;
use super::extract::{Actor, Caller, Json, Params, Reader, RoomId, Turns, by, needs_user, unauthorized};
use super::late::refuse_late;
use super::openapi::problems::{Body, ByKey, Called, RoomConflict, RoomNameTaken, Unauthorized};
use super::openapi::{examples, params};
use super::reading::readable_events;
use super::unread::markers;
use crate::App;
use crate::limits::{Act, RequestLimits, Subject};
use crate::problem::Problem;
use crate::views::history::{self, Position};
use crate::views::{Details, Page, RoomJson, Viewer, VisibilityJson};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// A room to create.
#[derive(Deserialize, ToSchema)]
struct NewRoom {
    /// 1 to 80 characters on one line, trimmed, with at least one visible character. Invisible characters are rejected,
    /// except joiners and variation selectors within visible text. Unique among public rooms, regardless of case.
    #[schema(min_length = 1, max_length = 80)]
    name: String,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// `public` if it is left out.
    #[schema(value_type = Option<VisibilityJson>)]
    visibility: Option<String>,
}

/// Changes of a room. Fields that are left out stay unchanged.
#[derive(Deserialize, ToSchema)]
struct RoomChange {
    #[schema(min_length = 1, max_length = 80)]
    name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// When the room becomes private, all sockets in it are closed, and members join again. When it becomes public, all
    /// users may read its whole history.
    #[schema(value_type = Option<VisibilityJson>)]
    visibility: Option<String>,
}

fn visibility(text: Option<&str>) -> Result<Option<Visibility>, Error> {
    match text {
        None => Ok(None),
        Some("public") => Ok(Some(Visibility::Public)),
        Some("private") => Ok(Some(Visibility::Private)),
        Some(_) => Err(Error::field("visibility", "must be public or private")),
    }
}

/// Create a room
///
/// Creates a room. The caller becomes its owner. Only members see a private room; for all other callers it does not
/// exist. A user who is in 1,000 rooms (`CONFAB_MAX_ROOMS_PER_USER`) cannot create another one.
#[utoipa::path(
    post,
    path = "/api/rooms",
    operation_id = "create_room",
    tag = "Rooms",
    request_body(content = NewRoom, example = json!({"name": "Tea"})),
    responses(
        (status = 201, description = "The room was created", headers(("Location" = String, description = "The path of the room")),
            body = RoomJson, example = json!(examples::room(0))),
        Body, Unauthorized, RoomConflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn create(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    limits: RequestLimits,
    Json(new): Json<NewRoom>,
) -> Result<Response, Problem> {
    let visibility = visibility(new.visibility.as_deref())?.unwrap_or(Visibility::Public);
    limits.check(Act::CreateRoom, caller.user_id).await?;
    let create = CreateRoomRequest {
        id: Uuid::now_v7().to_string(),
        caller: Some(caller.user),
        name: new.name,
        description: new.description.unwrap_or_default(),
        visibility: visibility.into(),
    };
    let room = app
        .clients
        .room
        .clone()
        .create_room(caller.credential.attach(request(create, app.clients.call)))
        .await?
        .into_inner();
    let location = format!("/api/rooms/{}", room.id);
    let json = RoomJson::new(&room, 0, Viewer::User).with_marker(Some(&Marker::default()));
    Ok((StatusCode::CREATED, [(LOCATION, location)], Answer(json)).into_response())
}

/// List rooms
///
/// Lists public rooms and the rooms of which the caller is a member, the newest first. A server key without
/// `Confab-User` lists public rooms.
///
/// With `mine=true`, the list contains only the rooms of which the caller is a member, the room with the most recent
/// event first. The order is that of the time of the first page: each room is listed once, also if rooms become active
/// while the client reads the pages.
#[utoipa::path(
    get,
    path = "/api/rooms",
    operation_id = "list_rooms",
    tag = "Rooms",
    params(params::Limit, params::Cursor, params::Search, params::Mine),
    responses(
        (status = 200, description = "A page of rooms", body = Page<RoomJson>, example = json!(examples::rooms())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    address: ClientAddress,
    limits: RequestLimits,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let (deadline, viewer) = (Deadline::of(&app), viewer(reader.as_ref()));
    let searcher = Subject::of(reader.as_ref().map(Actor::id), address);
    // A server key without a user lists public rooms, as an anonymous caller.
    let caller = reader.as_ref().and_then(Actor::user).map(|user| user.user.clone());
    let (limit, cursor, mine) = (params.limit()?, params.cursor()?, params.flag("mine")?);
    let query = params.text("q").unwrap_or_default().to_owned();
    if mine && caller.is_none() {
        let error = if reader.is_none() { unauthorized("a bearer token is needed") } else { needs_user() };
        return Err(Problem(error));
    }
    if !query.is_empty() {
        limits.check(Act::Search, searcher).await?;
    }
    // The room service limits concurrent searches of all rooms itself.
    let _turn = if mine || query.is_empty() { turns.next().await? } else { None };
    let mut service = app.clients.room.clone();
    let listed = if mine {
        let list = deadline.reading(ListOwnRoomsRequest { caller, limit, cursor, query });
        service.list_own_rooms(by(reader.as_ref(), list)).await
    } else {
        let list = deadline.reading(ListRoomsRequest { caller, limit, cursor, query });
        service.list_rooms(by(reader.as_ref(), list)).await
    };
    let mut page = refuse_late(listed).await?.into_inner();
    page.rooms.iter_mut().for_each(|room| app.clients.deleted.hide_in_room(room));
    let seqs = last_seqs(&app, &deadline, page.rooms.iter().map(|room| room.id.clone()).collect()).await?;
    let own = page.rooms.iter().filter(|room| room.role() != Role::Unspecified).map(|room| room.id.clone()).collect();
    let markers = own_markers(&app, reader.as_ref(), own).await?;
    let items = page.rooms.iter().zip(seqs);
    let items = items.map(|(room, seq)| RoomJson::new(room, seq, viewer).with_marker(markers.get(&room.id))).collect();
    Ok(Answer(Page { items, next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()) }).into_response())
}

/// Show a room
///
/// Returns a room with its latest messages. A server key without the scope `messages` gets no messages.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}",
    operation_id = "show_room",
    tag = "Rooms",
    params(params::Room, params::Limit),
    responses(
        (status = 200, description = "The room", body = Details, example = json!(examples::details())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn show(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(id): RoomId,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let _turn = turns.next().await?;
    let ((room, events), markers) = tokio::try_join!(
        readable_events(&app, reader.as_ref(), id, Position::Latest, limit),
        own_markers(&app, reader.as_ref(), vec![id.to_string()])
    )?;
    let messages = history::page(id, Position::Latest, &events);
    let room = RoomJson::new(&room, events.last_seq, viewer(reader.as_ref())).with_marker(markers.get(&room.id));
    Ok(Answer(Details { room, messages }).into_response())
}

/// Change a room
///
/// Changes the name, description or visibility of a room. Allowed for its owner and admins; the visibility only for its
/// owner.
#[utoipa::path(
    patch,
    path = "/api/rooms/{roomId}",
    operation_id = "change_room",
    tag = "Rooms",
    params(params::Room),
    request_body(content = RoomChange, example = json!({"description": "Green, black and white"})),
    responses(
        (status = 200, description = "The changed room", body = RoomJson, example = json!(examples::room(43))),
        Body, Unauthorized, RoomNameTaken, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn change(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(id): RoomId,
    limits: RequestLimits,
    Json(change): Json<RoomChange>,
) -> Result<Response, Problem> {
    let visibility = visibility(change.visibility.as_deref())?;
    check_change(&limits, &actor).await?;
    let details = json!({"name": change.name, "description": change.description, "visibility": change.visibility});
    actor.recorded(&app, "room.change", id, details).await?;
    let deadline = Deadline::of(&app);
    let update = UpdateRoomRequest {
        caller: Some(actor.caller()),
        id: id.to_string(),
        name: change.name,
        description: change.description,
        visibility: visibility.map(Into::into),
        moderator: actor.is_moderator(),
    };
    let mut room =
        app.clients.room.clone().update_room(actor.credential().attach(deadline.request(update))).await?.into_inner();
    app.clients.deleted.hide_in_room(&mut room);
    let seq = last_seqs(&app, &deadline, vec![room.id.clone()]).await?.next().unwrap_or_default();
    let markers = own_markers(&app, Some(&actor), vec![room.id.clone()]).await?;
    let json = RoomJson::new(&room, seq, viewer(Some(&actor))).with_marker(markers.get(&room.id));
    Ok(Answer(json).into_response())
}

/// Delete a room
///
/// Deletes a room with its messages and files. Allowed for its owner and admins.
#[utoipa::path(
    delete,
    path = "/api/rooms/{roomId}",
    operation_id = "delete_room",
    tag = "Rooms",
    params(params::Room),
    responses((status = 204, description = "The room is deleted"), Unauthorized, ByKey, Called),
    security(("bearer" = []), ("key" = []))
)]
async fn delete(State(app): State<Arc<App>>, actor: Actor, RoomId(id): RoomId) -> Result<StatusCode, Problem> {
    actor.recorded(&app, "room.delete", id, Value::Null).await?;
    let (caller, moderator) = (Some(actor.caller()), actor.is_moderator());
    let delete = DeleteRoomRequest { caller, id: id.to_string(), moderator };
    app.clients.room.clone().delete_room(actor.credential().attach(Deadline::of(&app).once(delete))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Counts a change of a room or of its members by a user. Server keys without a user are not limited.
///
/// # Errors
/// `rate_limited` when the user has changed too much.
pub(super) async fn check_change(limits: &RequestLimits, actor: &Actor) -> Result<(), Error> {
    match actor.user() {
        Some(user) => limits.check(Act::ChangeRoom, user.user_id).await,
        None => Ok(()),
    }
}

/// Who sees a room: an anonymous caller, a user, or a server key.
fn viewer(reader: Option<&Actor>) -> Viewer {
    match reader {
        None => Viewer::Anonymous,
        Some(actor) if actor.is_moderator() => Viewer::Moderator,
        Some(_) => Viewer::User,
    }
}

/// The markers of a user in these rooms, by room. Other readers have none.
async fn own_markers(
    app: &App,
    reader: Option<&Actor>,
    room_ids: Vec<String>,
) -> Result<HashMap<String, Marker>, Problem> {
    let Some(user) = reader.and_then(Actor::user).filter(|_| !room_ids.is_empty()) else { return Ok(HashMap::new()) };
    let markers = match markers(app, user, room_ids).await {
        // Also from a replica of the release before, which knows no markers.
        Err(Problem(error)) if error.code == Code::Unavailable => Vec::new(),
        listed => listed?,
    };
    Ok(markers.into_iter().map(|marker| (marker.room_id.clone(), marker)).collect())
}

/// The newest `seq` of each of these rooms, in the order of the ids.
async fn last_seqs(
    app: &App,
    deadline: &Deadline,
    room_ids: Vec<String>,
) -> Result<impl Iterator<Item = u64>, Problem> {
    let mut heads = HashMap::new();
    if !room_ids.is_empty() {
        let ask = deadline.reading(GetRoomHeadsRequest { room_ids: room_ids.clone(), until_ms: None });
        let answer = app.clients.message.clone().get_room_heads(ask).await?.into_inner();
        heads.extend(answer.heads.into_iter().map(|head| (head.room_id, head.seq)));
    }
    Ok(room_ids.into_iter().map(move |id| heads.get(&id).copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests;

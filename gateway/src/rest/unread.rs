//! Read markers, read receipts and notifications.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_identity::tokens::Identity;
use confab_proto::message::v1::{ListMarkersRequest, ListReceiptsRequest, Marker, Notify, SetNotifyRequest};
use confab_proto::room::v1::ListMembersRequest;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Actor, Caller, Json, RoomId, Turns};
use super::openapi::problems::{Body, ByKey, Called, Unauthorized};
use super::openapi::{examples, params};
use super::reading::{hidden_room, in_room, readable_room, reading};
use crate::App;
use crate::payload::any_number;
use crate::problem::Problem;
use crate::views::{LevelJson, MarkerJson, ReceiptJson, Receipts, UnreadJson};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(mark))
        .routes(routes!(receipts))
        .routes(routes!(notify))
}

/// A mark.
#[derive(Deserialize, ToSchema)]
struct NewMark {
    /// The `seq` up to which the user has read. Above the room's newest `seq`, it stands for that.
    #[serde(deserialize_with = "any_number")]
    #[schema(minimum = 0, format = "uint64")]
    seq: u64,
    /// Whether the marker also moves backwards: messages above `seq` become unread.
    unread: Option<bool>,
}

/// What the user wants to be notified of in a room.
#[derive(Deserialize, ToSchema)]
struct NewNotify {
    #[schema(value_type = LevelJson)]
    level: String,
    /// Until when the level holds; `all` holds after that. Without end if it is left out.
    #[schema(format = "date-time")]
    until: Option<String>,
}

/// List unread messages
///
/// Returns the number of unread messages in each room of which the caller is a member, and their total. It is exact, and
/// the same on all devices: deleted messages, room events and changes of messages do not count.
#[utoipa::path(
    get,
    path = "/api/unread",
    operation_id = "list_unread",
    tag = "Unread",
    responses(
        (status = 200, description = "The unread messages", body = UnreadJson, example = json!(examples::unread())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(State(app): State<Arc<App>>, Caller(caller): Caller, turns: Turns) -> Result<Response, Problem> {
    let _turn = turns.next().await?;
    let markers = markers(&app, &caller, Vec::new()).await?;
    Ok(Answer(UnreadJson::from(&*markers)).into_response())
}

/// Mark messages as read
///
/// Moves the caller's read marker in a room forward to a `seq`. A lower `seq` changes nothing. With `unread`, the marker
/// also moves backwards. Allowed for members of the room.
///
/// The response follows when the marker is stored: within a second.
#[utoipa::path(
    put,
    path = "/api/rooms/{roomId}/read",
    operation_id = "mark_read",
    tag = "Unread",
    params(params::Room),
    request_body(content = NewMark, example = json!({"seq": 42})),
    responses(
        (status = 200, description = "The marker that stands", body = MarkerJson, example = json!(examples::marker())),
        Body, Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn mark(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    RoomId(room): RoomId,
    Json(mark): Json<NewMark>,
) -> Result<Response, Problem> {
    let (user, credential) = (caller.user_id, &caller.credential);
    let marked = if mark.unread == Some(true) {
        app.marks.move_back(room, user, mark.seq, credential).await
    } else {
        match app.marks.begin(room, user, mark.seq, credential.clone()) {
            Ok(marking) => marking.outcome().await,
            Err(error) => Err(error),
        }
    };
    match marked {
        Ok(marked) => Ok(Answer(MarkerJson::from(marked)).into_response()),
        Err(error) => Err(of_member(&app, caller, room, error).await),
    }
}

/// List read receipts
///
/// Returns how far each member of a room has read. Allowed for all who may read the room, if it has at most 100 members
/// (`CONFAB_RECEIPTS_MAX_MEMBERS`).
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/reads",
    operation_id = "list_reads",
    tag = "Unread",
    params(params::Room),
    responses(
        (status = 200, description = "The receipts", body = Receipts, example = json!(examples::receipts())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn receipts(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    turns: Turns,
) -> Result<Response, Problem> {
    let _turn = turns.next().await?;
    let (reader, most) = (Some(&actor), app.marks.receipts_max_members());
    let list = ListReceiptsRequest { reading: Some(reading(reader, room)), most };
    let mut messages = app.clients.message.clone();
    let list = messages.list_receipts(actor.credential().attach(request(list, app.clients.read)));
    let (_, receipts) = in_room(&app, reader, room, list).await?;
    let mut of_user: HashMap<_, _> =
        receipts.receipts.into_iter().map(|receipt| (receipt.user_id.clone(), receipt)).collect();
    let mut members = Vec::with_capacity(of_user.len());
    let mut cursor = String::new();
    // The room service lists the names; at most 1000 members are at most five pages.
    loop {
        let (caller, moderator) = (Some(actor.caller()), actor.is_moderator());
        let list = ListMembersRequest { caller, room_id: room.to_string(), limit: 200, cursor, moderator };
        let list = actor.credential().attach(request(list, app.clients.read));
        let page = app.clients.room.clone().list_members(list).await.map_err(hidden_room)?.into_inner();
        members.extend(page.members);
        cursor = page.next_cursor;
        if cursor.is_empty() || members.len() > most as usize {
            break;
        }
    }
    members.iter_mut().for_each(|member| app.clients.deleted.hide_in(&mut member.user));
    let named = members.iter().filter_map(|member| member.user.as_ref());
    let items = named.filter_map(|user| Some(ReceiptJson::new(user, &of_user.remove(&user.id)?))).collect();
    Ok(Answer(Receipts { items }).into_response())
}

/// Set notifications
///
/// Sets what the caller wants to be notified of in a room, for all devices. The server stores it and counts unread
/// messages by it. Allowed for members of the room.
#[utoipa::path(
    put,
    path = "/api/rooms/{roomId}/notify",
    operation_id = "set_notify",
    tag = "Unread",
    params(params::Room),
    request_body(content = NewNotify, example = json!({"level": "mentions"})),
    responses((status = 204, description = "The level is set"), Body, Unauthorized, ByKey, Called),
    security(("bearer" = []), ("key" = []))
)]
async fn notify(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    RoomId(room): RoomId,
    Json(new): Json<NewNotify>,
) -> Result<StatusCode, Problem> {
    let level = LevelJson::parse(&new.level).ok_or_else(|| Error::field("level", "must be all, mentions or none"))?;
    let until_ms = match new.until.as_deref() {
        None => None,
        Some(text) => match text.parse::<Timestamp>() {
            Ok(time) => Some(time.as_millisecond()),
            Err(_) => return Err(Error::field("until", "must be a time, as in RFC 3339").into()),
        },
    };
    let notify = Notify { level: level.to_level().into(), until_ms };
    let user_id = caller.user_id.to_string();
    let set = SetNotifyRequest { room_id: room.to_string(), user_id, notify: Some(notify) };
    let set = caller.credential.attach(request(set, app.clients.call));
    match app.clients.message.clone().set_notify(set).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(status) => Err(of_member(&app, caller, room, status.into()).await),
    }
}

/// The error of a request about the caller's own membership. A room that is hidden from the caller does not exist.
async fn of_member(app: &App, caller: Identity, room: Uuid, error: Error) -> Problem {
    if error.code == Code::Forbidden
        && let Err(hidden) = readable_room(app, Some(&Actor::User(caller)), room).await
    {
        return hidden;
    }
    error.into()
}

/// The caller's markers: in these rooms, or in all rooms.
pub(super) async fn markers(app: &App, caller: &Identity, room_ids: Vec<String>) -> Result<Vec<Marker>, Problem> {
    let list = ListMarkersRequest { user_id: caller.user.id.clone(), room_ids };
    let list = caller.credential.attach(request(list, app.clients.read));
    Ok(app.clients.message.clone().list_markers(list).await?.into_inner().markers)
}

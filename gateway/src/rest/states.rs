//! Reads the present state of messages: one message, the changed messages, the pinned ones, and the versions of one.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::message::v1::{ListChangesRequest, ListPinsRequest, ListVersionsRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Actor, Params, Reader, RoomId, Seq, Turns, by};
use super::openapi::problems::{ByKey, Called, Unauthorized};
use super::openapi::{examples, params};
use super::reading::{hidden, in_room, readable_events, readable_room, reading, show_own, shown};
use super::revision::with_revision;
use crate::App;
use crate::problem::Problem;
use crate::views::history::{Changes, History, Pins, Position};
use crate::views::{MessageJson, Versions};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    let routes = OpenApiRouter::default().routes(routes!(show)).routes(routes!(versions));
    routes.routes(routes!(pins)).routes(routes!(changes))
}

/// Get a message
///
/// Returns a message or a room event in its present state.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/messages/{seq}",
    operation_id = "get_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq),
    responses(
        (status = 200, description = "The message", body = MessageJson,
            headers(("ETag" = String, description = "The message's `revision`, in quotation marks")),
            example = json!(examples::message())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn show(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    Seq(seq): Seq,
) -> Result<Response, Problem> {
    let (_, part) = readable_events(&app, reader.as_ref(), room, Position::After(seq - 1), 1).await?;
    // The page of a number that belongs to a change begins with the next message.
    let message = part.events.first().filter(|event| event.seq == seq).ok_or_else(|| Error::not_found("message"))?;
    Ok(with_revision(message))
}

/// List the versions of a message
///
/// Lists the former texts of a message and the present one. Allowed for its author, for the owner and admins of the
/// room, and for a server key without a user.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/messages/{seq}/versions",
    operation_id = "list_versions",
    tag = "Messages",
    params(params::Room, params::MessageSeq),
    responses(
        (status = 200, description = "The versions", body = Versions, example = json!(examples::versions())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn versions(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    turns: Turns,
) -> Result<Response, Problem> {
    let _turn = turns.next().await?;
    let reader = Some(&actor);
    let list = ListVersionsRequest { reading: Some(reading(reader, room)), seq };
    let mut messages = app.clients.message.clone();
    let list = messages.list_versions(by(reader, request(list, app.clients.read)));
    // What the message service does not find in a room that the reader sees is the message.
    readable_room(&app, reader, room).await?;
    let mut list = list.await.map_err(|status| hidden(status, "message"))?.into_inner();
    list.versions.iter_mut().for_each(|version| app.clients.deleted.hide_in(&mut version.by));
    Ok(Answer(Versions::from(&list)).into_response())
}

/// List the pinned messages of a room
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/pins",
    operation_id = "list_pins",
    tag = "Messages",
    params(params::Room),
    responses(
        (status = 200, description = "The pinned messages", body = Pins, example = json!(examples::pins())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn pins(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    turns: Turns,
) -> Result<Response, Problem> {
    let _turn = turns.next().await?;
    let reader = reader.as_ref();
    let list = ListPinsRequest { reading: Some(reading(reader, room)) };
    let mut messages = app.clients.message.clone();
    let list = messages.list_pins(by(reader, request(list, app.clients.read)));
    let (_, mut pins) = in_room(&app, reader, room, list).await?;
    app.clients.deleted.hide_in_events(&mut pins.messages);
    show_own(&app, reader, room, &mut pins.messages).await?;
    Ok(Answer(Pins::from(&pins)).into_response())
}

/// List the changed messages of a room
///
/// Lists the messages that were changed after a `seq`, in their present state and in rising `revision`. A client
/// replaces the messages that it holds with those whose `revision` is higher. With `from` and `upTo`, the client limits
/// the list to the messages that it holds.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/changes",
    operation_id = "list_changes",
    tag = "Messages",
    params(params::Room, params::ChangedAfter, params::From, params::UpTo, params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of changed messages", body = History<MessageJson>,
            example = json!(examples::changes())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn changes(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let (limit, wanted) = (params.limit()?, wanted(room, &params)?);
    let _turn = turns.next().await?;
    let reader = reader.as_ref();
    let Changes { after, from, up_to } = wanted;
    let list = ListChangesRequest { reading: Some(reading(reader, room)), after, from, up_to, limit, max_bytes: 0 };
    let mut messages = app.clients.message.clone();
    let list = messages.list_changes(by(reader, request(list, app.clients.read)));
    let mut part = shown(&app, in_room(&app, reader, room, list).await?.1);
    show_own(&app, reader, room, &mut part.events).await?;
    Ok(Answer(wanted.page(room, &part)).into_response())
}

/// The changed messages that the parameters request.
fn wanted(room: Uuid, params: &Params) -> Result<Changes, Error> {
    let cursor = params.text("cursor").map(|text| Changes::of_cursor(room, text)).transpose()?;
    match (params.seq("after", 0)?, params.seq("from", 1)?, params.seq("upTo", 1)?, cursor) {
        (None, None, None, Some(changes)) => Ok(changes),
        (Some(after), from, up_to, None) => {
            Ok(Changes { after, from: from.unwrap_or(1), up_to: up_to.unwrap_or_default() })
        }
        (None, _, _, None) => Err(Error::field("after", "must be given")),
        _ => {
            let detail = "a cursor continues a list with its own after, from and upTo; send it alone";
            Err(Error::new(Code::InvalidRequest, detail))
        }
    }
}

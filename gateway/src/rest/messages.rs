//! Messages: sends messages, and lists history in both directions.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::message::v1::{ListEventsRequest, ListEventsResponse};
use confab_proto::room::v1::{GetRoomRequest, Room};
use tonic::Status;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Actor, Caller, Json, Params, Reader, RoomId, Turns, by};
use super::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use super::openapi::{examples, params};
use crate::App;
use crate::edge::cors::IDEMPOTENCY_KEY;
use crate::limits::{Act, RequestLimits};
use crate::new_message::NewMessage;
use crate::problem::Problem;
use crate::views::history::{self, Position};
use crate::views::{MessageJson, Page, Repeated};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(post)).routes(routes!(list))
}

/// Send a message
///
/// Sends a message and returns it once it is committed. With a `clientMessageId` the request can be repeated after any
/// failure; the message is sent once.
#[utoipa::path(
    post,
    path = "/api/messages",
    operation_id = "send_message",
    tag = "Messages",
    params(params::IdempotencyKey),
    request_body(
        content = NewMessage,
        example = json!({"roomId": examples::ROOM, "content": "Milk first?"})
    ),
    responses(
        (status = 201, description = "The message is committed", body = MessageJson, example = json!(examples::message())),
        (status = 200,
            description = "A repeat of this `clientMessageId`: the first message, whatever this request contains",
            body = Repeated<MessageJson>, example = json!(Repeated::from(examples::message()))),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn post(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    headers: HeaderMap,
    limits: RequestLimits,
    Json(mut message): Json<NewMessage>,
) -> Result<Response, Problem> {
    message.client_message_id = client_message_id(&headers, message.client_message_id)?;
    let (room, event) = message.into_event(&caller)?;
    limits.take(Act::Send, caller.user_id)?;
    let sent = app.sender.send(room, event, caller.credential, app.config.request_timeout).await?;
    let message = MessageJson::from(&sent.event);
    Ok(if sent.duplicate {
        Answer(Repeated::from(message)).into_response()
    } else {
        (StatusCode::CREATED, Answer(message)).into_response()
    })
}

/// Combines the header `Idempotency-Key` and the field `clientMessageId`, which mean the same.
pub(super) fn client_message_id(headers: &HeaderMap, field: Option<String>) -> Result<Option<String>, Error> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(field) };
    let key = std::str::from_utf8(key.as_bytes()).ok().filter(|key| !key.is_empty() && keys.next().is_none());
    let key = key.ok_or_else(|| Error::field("Idempotency-Key", "must be one string of 1 to 128 bytes"))?;
    if field.is_some_and(|field| field != key) {
        return Err(Error::field("clientMessageId", "must be the same as Idempotency-Key"));
    }
    Ok(Some(key.to_owned()))
}

/// List the messages of a room
///
/// Returns the latest page, the page before a `seq` or the page after a `seq`. Items are in rising `seq` on all pages.
/// `nextCursor` continues in the same direction.
#[utoipa::path(
    get,
    path = "/api/messages/{roomId}",
    operation_id = "list_messages",
    tag = "Messages",
    params(params::Room, params::Limit, params::Before, params::After, params::Cursor),
    responses(
        (status = 200, description = "A page of messages", body = Page<MessageJson>, example = json!(examples::messages())),
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
    let limit = params.limit()?;
    let position = position(room, &params)?;
    let _turn = turns.next().await?;
    let (_, events) = readable_events(&app, reader.as_ref(), room, position, limit).await?;
    Ok(Answer(history::page(room, position, &events)).into_response())
}

/// The place of the page that the parameters request.
fn position(room: Uuid, params: &Params) -> Result<Position, Error> {
    let cursor = params.text("cursor").map(|text| Position::of_cursor(room, text)).transpose()?;
    match (params.seq("before", 1)?, params.seq("after", 0)?, cursor) {
        (None, None, None) => Ok(Position::Latest),
        (Some(seq), None, None) => Ok(Position::Before(seq)),
        (None, Some(seq), None) => Ok(Position::After(seq)),
        (None, None, Some(position)) => Ok(position),
        _ => Err(Error::new(Code::InvalidRequest, "only one of before, after and cursor can be given")),
    }
}

/// The room and a page of its log, if the reader may read it. Both services check this. A room that is hidden from the
/// reader gets the same response as a room that does not exist, whichever service rejects the reader first. A server
/// key without the scope `messages` gets an empty page.
pub(super) async fn readable_events(
    app: &App,
    reader: Option<&Actor>,
    room: Uuid,
    position: Position,
    limit: u32,
) -> Result<(Room, ListEventsResponse), Problem> {
    let (before, after) = match position {
        Position::Latest => (None, None),
        Position::Before(seq) => (Some(seq), None),
        Position::After(seq) => (None, Some(seq)),
    };
    let moderator = reader.is_some_and(Actor::is_moderator);
    let limit = if reader.is_none_or(Actor::may_see_messages) { limit } else { 0 };
    let get = GetRoomRequest { caller: reader.map(Actor::caller), id: room.to_string(), moderator };
    let readers = reader.and_then(Actor::user).map(|user| user.user.id.clone()).into_iter().collect();
    let room_id = room.to_string();
    let list = ListEventsRequest { room_id, before, after, limit, readers, moderator, ..ListEventsRequest::default() };
    let (mut rooms, mut messages) = (app.clients.room.clone(), app.clients.message.clone());
    let read = tokio::try_join!(
        rooms.get_room(by(reader, request(get, app.clients.read))),
        messages.list_events(by(reader, request(list, app.clients.read)))
    );
    let (room, events) = read.map_err(hidden_room)?;
    let (mut room, mut events) = (room.into_inner(), events.into_inner());
    app.clients.deleted.hide_in_room(&mut room);
    app.clients.deleted.hide_in_events(&mut events.events);
    Ok((room, events))
}

/// The error of a call that reads a room, with the same words for every reason why the caller may not see the room.
pub(super) fn hidden_room(status: Status) -> Problem {
    match Error::from(status) {
        error if error.code == Code::NotFound => Error::not_found("room").into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_key_and_client_message_id_are_the_same() {
        let mut headers = HeaderMap::new();
        let field = || Some("a".to_owned());
        assert_eq!(client_message_id(&headers, field()).unwrap(), field());
        headers.insert(IDEMPOTENCY_KEY, "a".parse().unwrap());
        assert_eq!(client_message_id(&headers, None).unwrap(), field());
        assert_eq!(client_message_id(&headers, field()).unwrap(), field());
        assert!(client_message_id(&headers, Some("b".into())).is_err());
        headers.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        assert!(client_message_id(&headers, None).is_err());
        headers.insert(IDEMPOTENCY_KEY, "".parse().unwrap());
        assert!(client_message_id(&headers, None).is_err());
    }
}

//! Messages: sends messages, and lists history in both directions.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_common::{Code, Error};
use confab_identity::tokens::Identity;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Caller, JsonWithData, Params, Reader, RoomId, Turns};
use super::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use super::openapi::{examples, params};
use super::reading::{every_event, readable_events};
use crate::App;
use crate::edge::cors::IDEMPOTENCY_KEY;
use crate::limits::{Act, RequestLimits};
use crate::new_message::NewMessage;
use crate::own_reactions;
use crate::problem::Problem;
use crate::views::history::{self, History, Part, Position};
use crate::views::{ItemJson, MessageJson, Repeated};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    let routes = OpenApiRouter::default().routes(routes!(list, post));
    routes.routes(routes!(post_by_body)).routes(routes!(list_by_id))
}

/// A message to send to the room in the path. Fields that the server assigns are ignored.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RoomMessage {
    /// 1 to 16,384 bytes of UTF-8. May be empty when `fileIds` names at least one file.
    #[schema(max_length = 16_384)]
    content: String,
    /// An id that the client chooses for the message, 1 to 128 bytes. A second request with the same id in the same
    /// room returns the first message and sends nothing.
    #[schema(min_length = 1, max_length = 128)]
    client_message_id: Option<String>,
    /// At most 10 files to attach. A file without a room is moved to this room.
    #[schema(max_items = 10)]
    file_ids: Option<Vec<String>>,
    /// Data of the app with the message: a JSON object of at most 4,096 bytes and 64 levels, which is kept as it was
    /// sent.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "the text of the request is kept")]
    data: Option<IgnoredAny>,
}

/// Send a message to a room
///
/// Sends a message and returns it once it is committed. With a `clientMessageId` the request can be repeated after any
/// failure; the message is sent once.
#[utoipa::path(
    post,
    path = "/api/rooms/{roomId}/messages",
    operation_id = "send_room_message",
    tag = "Messages",
    params(params::Room, params::IdempotencyKey),
    request_body(content = RoomMessage, example = json!({"content": "Milk first?"})),
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
    RoomId(room): RoomId,
    headers: HeaderMap,
    limits: RequestLimits,
    JsonWithData { object, data }: JsonWithData<RoomMessage>,
) -> Result<Response, Problem> {
    let RoomMessage { content, client_message_id, file_ids, .. } = object;
    let message = NewMessage { room_id: room.to_string(), content, client_message_id, file_ids, data: raw(data) };
    send(&app, caller, &headers, &limits, message).await
}

/// Send a message
///
/// The same as `POST /api/rooms/{roomId}/messages`, with the room in the body.
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
async fn post_by_body(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    headers: HeaderMap,
    limits: RequestLimits,
    JsonWithData { object, data }: JsonWithData<NewMessage>,
) -> Result<Response, Problem> {
    let message = NewMessage { data: raw(data), ..object };
    send(&app, caller, &headers, &limits, message).await
}

/// The text of a field; `null` is no data.
fn raw(data: Option<String>) -> Option<Box<RawValue>> {
    data.and_then(|data| RawValue::from_string(data).ok()).filter(|data| data.get() != "null")
}

async fn send(
    app: &App,
    caller: Identity,
    headers: &HeaderMap,
    limits: &RequestLimits,
    mut message: NewMessage,
) -> Result<Response, Problem> {
    message.client_message_id = client_message_id(headers, message.client_message_id)?;
    let (room, event) = message.into_event(&caller)?;
    limits.take(Act::Send, caller.user_id)?;
    let (user, credential) = (caller.user_id, caller.credential);
    let mut sent = app.sender.send(room, event, credential.clone(), app.config.request_timeout).await?;
    if !sent.duplicate {
        app.marks.authored(room, user, sent.message.seq, &credential);
        app.typing.posted(room, user);
    }
    let own = std::slice::from_mut(&mut sent.message);
    own_reactions::mark(&app.clients, room, Some((user, &credential)), own).await?;
    let message = MessageJson::from(&sent.message);
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
/// Returns the latest page, the page before a `seq`, the page after a `seq` or the page around a `seq`. Items are in
/// rising `seq` on all pages: messages in their present state, and room events. `nextCursor` continues in the same
/// direction; of a page around a `seq`, towards newer messages. With `events=true`, changes of messages are items, too,
/// so that every number of the room has an item.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/messages",
    operation_id = "list_room_messages",
    tag = "Messages",
    params(params::Room, params::Limit, params::Before, params::After, params::Around, params::Events, params::Cursor),
    responses(
        (status = 200, description = "A page of messages", body = History<ItemJson>,
            example = json!(examples::messages())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    room: RoomId,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    page(&app, reader, room, &params, &turns).await
}

/// List the messages of a room
///
/// The same as `GET /api/rooms/{roomId}/messages`.
#[utoipa::path(
    get,
    path = "/api/messages/{roomId}",
    operation_id = "list_messages",
    tag = "Messages",
    params(params::Room, params::Limit, params::Before, params::After, params::Around, params::Events, params::Cursor),
    responses(
        (status = 200, description = "A page of messages", body = History<ItemJson>,
            example = json!(examples::messages())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list_by_id(
    State(app): State<Arc<App>>,
    reader: Reader,
    room: RoomId,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    page(&app, reader, room, &params, &turns).await
}

async fn page(
    app: &App,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    params: &Params,
    turns: &Turns,
) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let (wanted, is_raw) = (wanted(room, params)?, params.flag("events")?);
    let _turn = turns.next().await?;
    let reader = reader.as_ref();
    let read = async |position, limit| {
        if is_raw {
            every_event(app, reader, room, position, limit).await
        } else {
            Ok(readable_events(app, reader, room, position, limit).await?.1)
        }
    };
    let (position, part) = match wanted {
        Wanted::Page(position) => (position, read(position, limit).await?),
        Wanted::Around(seq) => {
            let mut older = if limit > 1 { read(Position::Before(seq), limit / 2).await? } else { Part::default() };
            let position = Position::After(seq - 1);
            // The newer part fills the page, so that a page with fewer items is the last one.
            let newer = read(position, limit - older.events.len() as u32).await?;
            older.events.extend(newer.events);
            (position, Part { events: older.events, ..newer })
        }
    };
    Ok(Answer(history::page::<ItemJson<'_>>(room, position, &part)).into_response())
}

/// The page that a client requests.
enum Wanted {
    Page(Position),
    /// The page around this `seq`.
    Around(u64),
}

/// The page that the parameters request.
fn wanted(room: Uuid, params: &Params) -> Result<Wanted, Error> {
    let cursor = params.text("cursor").map(|text| Position::of_cursor(room, text)).transpose()?;
    let (before, after, around) = (params.seq("before", 1)?, params.seq("after", 0)?, params.seq("around", 1)?);
    match (before, after, around, cursor) {
        (None, None, None, None) => Ok(Wanted::Page(Position::Latest)),
        (Some(seq), None, None, None) => Ok(Wanted::Page(Position::Before(seq))),
        (None, Some(seq), None, None) => Ok(Wanted::Page(Position::After(seq))),
        (None, None, Some(seq), None) => Ok(Wanted::Around(seq)),
        (None, None, None, Some(position)) => Ok(Wanted::Page(position)),
        _ => Err(Error::new(Code::InvalidRequest, "only one of before, after, around and cursor can be given")),
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

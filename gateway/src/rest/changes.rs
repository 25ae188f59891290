//! Changes of messages: edits, deletions and pins.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use confab_proto::message::v1::Op;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Actor, Caller, JsonWithData, Params, RoomId, Seq};
use super::messages::client_message_id;
use super::openapi::problems::{Body, ByKey, Called, Conflict, PreconditionFailed, Unauthorized};
use super::openapi::{examples, params};
use super::reading::show_own;
use super::revision::{if_match, with_revision};
use crate::App;
use crate::limits::{Act, RequestLimits};
use crate::new_change::NewChange;
use crate::problem::Problem;
use crate::views::MessageJson;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(edit, delete)).routes(routes!(pin, unpin))
}

/// A change of a message's text, of the app's data with it, or of both.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Edit {
    /// The new text, up to 16,384 bytes of UTF-8. May be empty only if the message has files. Absent: the text stays.
    #[schema(max_length = 16_384)]
    content: Option<String>,
    /// The id that the message must have; with another id the response is 409, because the log was restored.
    #[schema(format = "uuid")]
    id: Option<String>,
    /// An id that the client chooses for the edit, 1 to 128 bytes. A second request with the same id for the same
    /// message changes nothing.
    #[schema(min_length = 1, max_length = 128)]
    client_message_id: Option<String>,
    /// The new data of the app, a JSON object of at most 4,096 bytes and 64 levels. Absent: the data stays. A message of
    /// type `file` has none.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "the text of the request is kept")]
    data: Option<IgnoredAny>,
}

/// Edit a message
///
/// Replaces the text of a message, the app's data with it, or both. Allowed only for its author. The former text stays
/// among the message's versions. The same text and data change nothing and succeed.
#[utoipa::path(
    patch,
    path = "/api/rooms/{roomId}/messages/{seq}",
    operation_id = "edit_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::IdempotencyKey, params::IfRevision),
    request_body(content = Edit, example = json!({"content": "Milk last."})),
    responses(
        (status = 200, description = "The message with the new text", body = MessageJson,
            headers(("ETag" = String, description = "The message's `revision`, in quotation marks")),
            example = json!(examples::edited())),
        Body, Unauthorized, Conflict, PreconditionFailed, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn edit(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    headers: HeaderMap,
    limits: RequestLimits,
    JsonWithData { object: edit, data }: JsonWithData<Edit>,
) -> Result<Response, Problem> {
    let change = NewChange {
        target_id: edit.id,
        unchanged_since: if_match(&headers)?,
        client_message_id: client_message_id(&headers, edit.client_message_id)?,
        ..NewChange::edit(room, seq, edit.content, data.filter(|data| data != "null"))?
    };
    make(&app, &limits, &Actor::User(caller), change).await
}

/// Delete a message
///
/// Deletes a message for all users. Allowed for its author, for the owner and admins of the room, and for a server key
/// without a user. The message keeps its number, and all reads return it without text and files. Its text and its
/// former texts are erased within a minute. A second deletion changes nothing and succeeds.
#[utoipa::path(
    delete,
    path = "/api/rooms/{roomId}/messages/{seq}",
    operation_id = "delete_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::MessageId, params::IdempotencyKey),
    responses(
        (status = 200, description = "The deleted message", body = MessageJson,
            headers(("ETag" = String, description = "The message's `revision`, in quotation marks")),
            example = json!(examples::deleted())),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn delete(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    params: Params,
    headers: HeaderMap,
    limits: RequestLimits,
) -> Result<Response, Problem> {
    let client_message_id = client_message_id(&headers, None)?;
    let change = NewChange { client_message_id, ..on_message(&params, NewChange::new(room, seq, Op::Delete)) };
    make(&app, &limits, &actor, change).await
}

/// Pin a message
///
/// Allowed for the owner and admins of the room, and for a server key without a user. A room has at most 100 pinned
/// messages. A pin of a pinned message changes nothing and succeeds.
#[utoipa::path(
    put,
    path = "/api/rooms/{roomId}/messages/{seq}/pin",
    operation_id = "pin_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::MessageId),
    responses(
        (status = 200, description = "The pinned message", body = MessageJson,
            headers(("ETag" = String, description = "The message's `revision`, in quotation marks")),
            example = json!(examples::pinned())),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn pin(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    params: Params,
    limits: RequestLimits,
) -> Result<Response, Problem> {
    make(&app, &limits, &actor, on_message(&params, NewChange::new(room, seq, Op::Pin))).await
}

/// Unpin a message
///
/// Allowed for the owner and admins of the room, and for a server key without a user. If the message is not pinned, the
/// request changes nothing and succeeds.
#[utoipa::path(
    delete,
    path = "/api/rooms/{roomId}/messages/{seq}/pin",
    operation_id = "unpin_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::MessageId),
    responses(
        (status = 200, description = "The message, which is no longer pinned", body = MessageJson,
            headers(("ETag" = String, description = "The message's `revision`, in quotation marks")),
            example = json!(examples::message())),
        Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn unpin(
    State(app): State<Arc<App>>,
    actor: Actor,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    params: Params,
    limits: RequestLimits,
) -> Result<Response, Problem> {
    make(&app, &limits, &actor, on_message(&params, NewChange::new(room, seq, Op::Unpin))).await
}

/// Adds the id that the message must have.
fn on_message(params: &Params, change: NewChange) -> NewChange {
    NewChange { target_id: params.text("id").map(str::to_owned), ..change }
}

/// Makes a change, and returns its message. A server key without a user has no limit; its act is recorded first.
async fn make(app: &App, limits: &RequestLimits, actor: &Actor, change: NewChange) -> Result<Response, Problem> {
    let (room, seq, op, timeout) = (change.room, change.target, change.op, app.config.request_timeout);
    let event = change.into_event(actor.caller(), actor.is_moderator())?;
    let mut sent = match actor.user() {
        Some(user) => {
            limits.take(Act::Send, user.user_id)?;
            app.sender.send(room, event, user.credential.clone(), timeout).await?
        }
        None => {
            actor.recorded(app, act(op), room, json!({"seq": seq})).await?;
            app.sender.send_alone(event, actor.credential(), timeout).await?
        }
    };
    show_own(app, Some(actor), room, std::slice::from_mut(&mut sent.message)).await?;
    Ok(with_revision(&sent.message))
}

/// The name of an act in the audit.
fn act(op: Op) -> &'static str {
    match op {
        Op::Delete => "message.delete",
        Op::Pin => "message.pin",
        Op::Unpin => "message.unpin",
        Op::Edit | Op::React | Op::Unspecified => "message.edit",
    }
}

#[cfg(test)]
mod tests;

//! Reactions to messages.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use confab_common::grpc::request;
use confab_common::text;
use confab_proto::limits::MAX_REACTION;
use confab_proto::message::v1::ListReactionsRequest;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Caller, Params, ReactionName, Reader, RoomId, Seq, Turns, by};
use super::openapi::problems::{Body, ByKey, Called, Conflict, Unauthorized};
use super::openapi::{examples, params};
use super::reading::{hidden, readable_room, reading};
use crate::App;
use crate::limits::{Act, RequestLimits};
use crate::new_change::NewChange;
use crate::problem::Problem;
use crate::views::{ReactionList, Reactions};

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(react, unreact)).routes(routes!(list))
}

/// React to a message
///
/// Allowed for everyone who may post in the room. A message has reactions with at most 20 names. A reaction that stands
/// is not repeated: the request changes nothing and succeeds.
#[utoipa::path(
    put,
    path = "/api/rooms/{roomId}/messages/{seq}/reactions/{name}",
    operation_id = "react_to_message",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::ReactionName, params::MessageId),
    responses(
        (status = 200, description = "The reactions to the message", body = Reactions,
            example = json!(examples::reactions())),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn react(
    State(app): State<Arc<App>>,
    caller: Caller,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    ReactionName(name): ReactionName,
    params: Params,
    limits: RequestLimits,
) -> Result<Response, Problem> {
    set(&app, caller, &limits, &params, NewChange::react(room, seq, name, true)).await
}

/// End a reaction to a message
///
/// Ends a reaction of the caller. Without such a reaction, the request changes nothing and succeeds.
#[utoipa::path(
    delete,
    path = "/api/rooms/{roomId}/messages/{seq}/reactions/{name}",
    operation_id = "end_reaction",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::ReactionName, params::MessageId),
    responses(
        (status = 200, description = "The reactions to the message", body = Reactions,
            example = json!(examples::reactions())),
        Body, Unauthorized, Conflict, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn unreact(
    State(app): State<Arc<App>>,
    caller: Caller,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    ReactionName(name): ReactionName,
    params: Params,
    limits: RequestLimits,
) -> Result<Response, Problem> {
    set(&app, caller, &limits, &params, NewChange::react(room, seq, name, false)).await
}

async fn set(
    app: &App,
    Caller(caller): Caller,
    limits: &RequestLimits,
    params: &Params,
    change: NewChange,
) -> Result<Response, Problem> {
    let (room, target_id) = (change.room, params.text("id").map(str::to_owned));
    let event = NewChange { target_id, ..change }.into_event(caller.user.clone(), false)?;
    limits.take(Act::Send, caller.user_id)?;
    let sent = app.sender.send(room, event, caller.credential, app.config.request_timeout).await?;
    Ok(Answer(Reactions::from(&sent.message)).into_response())
}

/// List the reactions to a message
///
/// Lists who has reacted to a message, and with which names. A deleted message has no reactions.
#[utoipa::path(
    get,
    path = "/api/rooms/{roomId}/messages/{seq}/reactions",
    operation_id = "list_reactions",
    tag = "Messages",
    params(params::Room, params::MessageSeq, params::WithName, params::Limit, params::Cursor),
    responses(
        (status = 200, description = "A page of reactions", body = ReactionList,
            example = json!(examples::reaction_list())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn list(
    State(app): State<Arc<App>>,
    Reader(reader): Reader,
    RoomId(room): RoomId,
    Seq(seq): Seq,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let (limit, cursor) = (params.limit()?, params.cursor()?);
    let name = params.text("name").map(|name| text::reaction("name", name, MAX_REACTION).map(|()| name.to_owned()));
    let name = name.transpose()?.unwrap_or_default();
    let _turn = turns.next().await?;
    let reader = reader.as_ref();
    let list = ListReactionsRequest { reading: Some(reading(reader, room)), seq, name, limit, cursor };
    let mut messages = app.clients.message.clone();
    let list = messages.list_reactions(by(reader, request(list, app.clients.read)));
    // What the message service does not find in a room that the reader sees is the message.
    readable_room(&app, reader, room).await?;
    let mut list = list.await.map_err(|status| hidden(status, "message"))?.into_inner();
    list.reactions.iter_mut().for_each(|entry| app.clients.deleted.hide_in(&mut entry.user));
    Ok(Answer(ReactionList::from(&list)).into_response())
}

#[cfg(test)]
mod tests;

//! The search of messages.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use confab_common::{Error, Result, text};
use confab_proto::message::v1::{FoundMessage, SearchRequest, SearchResponse};
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Deadline;
use super::extract::{Actor, Params, Turns, needs_user};
use super::openapi::problems::{ByKey, Called, Unauthorized};
use super::openapi::{examples, params};
use super::reading::{in_room, show_own};
use super::users::{UserPath, resolve_id};
use crate::App;
use crate::limits::{Act, RequestLimits};
use crate::problem::Problem;
use crate::views::FoundMessages;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(search))
}

/// Search messages
///
/// Finds the messages with all words of `q`, in any order, the newest first. Capital letters, accents and other forms of
/// the same letters make no difference. Of the last word, the first two letters are enough. In scripts without spaces,
/// such as Chinese, Japanese, Korean and Thai, any sequence of characters is found. Without `roomId`, the search covers
/// the rooms of which the caller is a member. New, edited and deleted messages are in the index after about a second; a
/// deleted message or a message of a room that the caller may no longer read is never returned. A server key without
/// `Confab-User` must send `roomId`.
#[utoipa::path(
    get,
    path = "/api/search",
    operation_id = "search_messages",
    tag = "Messages",
    params(
        params::SearchWords, params::SearchRoom, params::SearchFrom, params::SearchBefore, params::Limit, params::Cursor
    ),
    responses(
        (status = 200, description = "A page of messages", body = FoundMessages,
            example = json!(examples::found_messages())),
        Unauthorized, ByKey, Called
    ),
    security(("bearer" = []), ("key" = []))
)]
async fn search(
    State(app): State<Arc<App>>,
    actor: Actor,
    limits: RequestLimits,
    params: Params,
    turns: Turns,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(&app);
    let room = params.text("roomId").map(|room| text::id("roomId", room)).transpose()?;
    let asked = SearchRequest {
        reader: actor.user().map(|user| user.user.id.clone()).unwrap_or_default(),
        moderator: actor.is_moderator(),
        room_id: room.map(|room| room.to_string()).unwrap_or_default(),
        query: params.text("q").filter(|q| !q.is_empty()).map(str::to_owned).ok_or_else(missing_query)?,
        sender_id: String::new(),
        before_ms: params.text("before").map(time).transpose()?,
        limit: params.limit()?,
        cursor: params.cursor()?,
    };
    if room.is_none() && actor.is_moderator() {
        return Err(needs_user().into());
    }
    let from = params.text("from").map(sender).transpose()?;
    limits.check(Act::Search, actor.id()).await?;
    let _turn = turns.next().await?;
    let sender_id = match from {
        Some(from) => sent_by(resolve_id(&app, &deadline, &limits, actor.user(), &from).await?),
        None => String::new(),
    };
    let found = find(&app, &deadline, &actor, room, SearchRequest { sender_id, ..asked }).await?;
    Ok(Answer(FoundMessages::try_from(&found)?).into_response())
}

/// Asks the message service. A second replica would do the same work again, so the first one has the whole time.
async fn find(
    app: &App,
    deadline: &Deadline,
    actor: &Actor,
    room: Option<Uuid>,
    asked: SearchRequest,
) -> Result<SearchResponse, Problem> {
    let mut messages = app.clients.message.clone();
    let call = messages.search(actor.credential().attach(deadline.once(asked)));
    let mut found = match room {
        Some(room) => in_room(app, Some(actor), room, call).await?.1,
        None => call.await?.into_inner(),
    };
    found.items.iter_mut().for_each(|item| app.clients.deleted.hide_in_events(item.message.as_mut_slice()));
    // Most pages are of few rooms.
    for items in found.items.chunk_by_mut(|a, b| room_of(a) == room_of(b)) {
        let Ok(room) = room_of(&items[0]).unwrap_or_default().parse() else { continue };
        let mut messages = items.iter_mut().filter_map(|item| item.message.take()).collect::<Vec<_>>();
        show_own(app, Some(actor), room, &mut messages).await?;
        items.iter_mut().zip(messages).for_each(|(item, message)| item.message = Some(message));
    }
    Ok(found)
}

fn room_of(item: &FoundMessage) -> Option<&str> {
    item.message.as_ref().map(|message| &*message.room_id)
}

fn missing_query() -> Error {
    Error::field("q", "must not be empty")
}

/// The user in the parameter `from`.
fn sender(from: &str) -> Result<UserPath> {
    match UserPath::of(from) {
        UserPath::Unknown => Err(Error::field("from", "must be the id of a user, me, or @ and a username")),
        known => Ok(known),
    }
}

/// An unknown user has sent nothing.
fn sent_by(id: String) -> String {
    if id.is_empty() { Uuid::nil().to_string() } else { id }
}

fn time(text: &str) -> Result<i64> {
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::as_millisecond)
        .map_err(|_| Error::field("before", "must be a time such as 2026-11-22T21:24:05.123Z"))
}

#[cfg(test)]
mod tests;

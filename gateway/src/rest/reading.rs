//! Reads of a room's messages on behalf of an actor, or of an anonymous caller.

use confab_common::grpc::request;
use confab_common::{Code, Error};
use confab_proto::message::v1::{Event, ListEventsRequest, ReadEventsRequest, Reading};
use confab_proto::room::v1::{GetRoomRequest, Room};
use tonic::Status;
use uuid::Uuid;

use super::extract::{Actor, by};
use crate::App;
use crate::own_reactions;
use crate::problem::Problem;
use crate::views::history::{Part, Position};

/// The room and a page of its history, if the reader may read it. A server key without the scope `messages` gets an
/// empty page.
pub(super) async fn readable_events(
    app: &App,
    reader: Option<&Actor>,
    room: Uuid,
    position: Position,
    limit: u32,
) -> Result<(Room, Part), Problem> {
    let (before, after) = bounds(position);
    let limit = if reader.is_none_or(Actor::may_see_messages) { limit } else { 0 };
    let moderator = reader.is_some_and(Actor::is_moderator);
    let readers = reader.and_then(Actor::user).map(|user| user.user.id.clone()).into_iter().collect();
    let (id, room_id) = (room, room.to_string());
    let list = ListEventsRequest { room_id, before, after, limit, readers, moderator, ..ListEventsRequest::default() };
    let mut messages = app.clients.message.clone();
    let list = messages.list_events(by(reader, request(list, app.clients.read)));
    let (room, events) = in_room(app, reader, room, list).await?;
    let mut part = shown(app, events);
    show_own(app, reader, id, &mut part.events).await?;
    Ok((room, part))
}

/// A page of every event of a room, if the reader may read it.
pub(super) async fn every_event(
    app: &App,
    reader: Option<&Actor>,
    room: Uuid,
    position: Position,
    limit: u32,
) -> Result<Part, Problem> {
    let (before, after) = bounds(position);
    let list = ReadEventsRequest { reading: Some(reading(reader, room)), before, after, limit, max_bytes: 0 };
    let mut messages = app.clients.message.clone();
    let list = messages.read_events(by(reader, request(list, app.clients.read)));
    let mut part = shown(app, in_room(app, reader, room, list).await?.1);
    show_own(app, reader, room, &mut part.events).await?;
    Ok(part)
}

fn bounds(position: Position) -> (Option<u64>, Option<u64>) {
    match position {
        Position::Latest => (None, None),
        Position::Before(seq) => (Some(seq), None),
        Position::After(seq) => (None, Some(seq)),
    }
}

/// A part of the log as clients may see it.
pub(super) fn shown(app: &App, events: impl Into<Part>) -> Part {
    let mut part = events.into();
    app.clients.deleted.hide_in_events(&mut part.events);
    part
}

/// Marks the reader's own reactions in messages of a room.
pub(super) async fn show_own(
    app: &App,
    reader: Option<&Actor>,
    room: Uuid,
    messages: &mut [Event],
) -> Result<(), Problem> {
    let user = reader.and_then(|reader| Some((reader.user()?.user_id, reader.credential())));
    Ok(own_reactions::mark(&app.clients, room, user, messages).await?)
}

/// The room, and who reads it.
pub(super) fn reading(reader: Option<&Actor>, room: Uuid) -> Reading {
    let user = reader.and_then(Actor::user).map(|user| user.user.id.clone());
    let moderator = reader.is_some_and(Actor::is_moderator);
    Reading { room_id: room.to_string(), reader: user.unwrap_or_default(), moderator }
}

/// The room and the answer to this call about its messages, if the reader may read the room. Both services check this.
/// A room that is hidden from the reader gets the same response as a room that does not exist, whichever service
/// rejects the reader first.
pub(super) async fn in_room<T>(
    app: &App,
    reader: Option<&Actor>,
    room: Uuid,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<(Room, T), Problem> {
    let call = async { call.await.map_err(hidden_room) };
    let (room, answer) = tokio::try_join!(readable_room(app, reader, room), call)?;
    Ok((room, answer.into_inner()))
}

/// The room, if the reader may read it.
pub(super) async fn readable_room(app: &App, reader: Option<&Actor>, room: Uuid) -> Result<Room, Problem> {
    let moderator = reader.is_some_and(Actor::is_moderator);
    let get = GetRoomRequest { caller: reader.map(Actor::caller), id: room.to_string(), moderator };
    let get = by(reader, request(get, app.clients.read));
    let mut room = app.clients.room.clone().get_room(get).await.map_err(hidden_room)?.into_inner();
    app.clients.deleted.hide_in_room(&mut room);
    Ok(room)
}

/// The error of a call that reads a room, with the same words for every reason why the caller may not see the room.
pub(super) fn hidden_room(status: Status) -> Problem {
    hidden(status, "room")
}

/// The error of a call, with the same words for all that it does not find.
pub(super) fn hidden(status: Status, what: &str) -> Problem {
    match Error::from(status) {
        error if error.code == Code::NotFound => Error::not_found(what).into(),
        error => error.into(),
    }
}

//! Joins a room without a lost or repeated event. The gateway first registers the client, then follows the partition,
//! then reads history. The message service returns history only to a user who may read the room at the page's
//! `last_seq`. Later changes of this right are events, which are fanned out like those that follow the answer.

use std::sync::Arc;
use std::time::Duration;

use confab_common::{Code, Error, Result, grpc};
use confab_proto::message::v1::Marker;
use confab_proto::room::v1::{GetRoomRequest, Role, Room};
use confab_socketio::Frame;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::client::{Socket, left};
use super::context::Chat;
use super::markers;
use super::request::Join;
use crate::limits::Act;
use crate::own_reactions;
use crate::rooms::history::{MAX_BYTES, Page, Wanted};
use crate::rooms::hub::{Arrival, Joining, NotLive};
use crate::views::{RoomJson, Viewer};

/// Pause before history is read again.
pub const BEHIND: Duration = Duration::from_millis(20);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    ok: bool,
    room: RoomJson<'a>,
    last_seq: u64,
    last_ordinal: u64,
    epoch: &'a str,
    messages: Vec<&'a RawValue>,
    complete: bool,
    changed: Vec<&'a RawValue>,
    changed_complete: bool,
    mine: Vec<Own>,
    reset: bool,
}

/// The names with which the user has reacted to a message.
#[derive(Serialize)]
struct Own {
    seq: u64,
    names: Vec<String>,
}

/// Joins the client to a room and answers it.
///
/// # Errors
/// `not_found` for a room that does not exist or that the client may not read. After `unavailable`, `timeout` and
/// `internal`, a client that was in the room before stays in it.
pub async fn join(
    chat: &Arc<Chat>,
    socket: &Arc<Socket>,
    ack: Option<u64>,
    join: Join,
    deadline: Instant,
) -> Result<()> {
    let user = socket.client.identity().map(|identity| identity.user_id);
    user.map_or(Ok(()), |user| chat.limits.take(Act::JoinRoom, user))?;
    let preparing =
        async { (socket.client.join_permit(&socket.outbox).await, chat.follower.partition_of(join.room).await) };
    let prepared = timeout_at(deadline, preparing);
    let (_permit, partition) = prepared.await.map_err(|_| Error::unavailable("the room's history"))?;
    let joining = begin(chat, socket, join.room, partition)?;
    // Boxed, because thousands of joins may wait for a permit, and few have one.
    let live = Box::pin(go_live(chat, socket, ack, &join, &joining, partition));
    let joined = timeout_at(deadline, live).await.unwrap_or_else(|_| Err(Error::timeout()));
    if let Err(error) = &joined {
        // A client that was in the room stays in it or reconnects to it, unless it lost the right to read.
        let may_stay = matches!(error.code, Code::Unavailable | Code::Timeout | Code::Internal);
        if !(may_stay && (chat.hub.cancel_join(&joining, socket) || socket.client.is_returning())) {
            chat.hub.leave(join.room, socket.id());
            left(socket, join.room);
        }
    }
    joined
}

/// Registers the client as joining.
///
/// # Errors
/// When the client is in too many rooms or has disconnected.
pub fn begin(chat: &Chat, socket: &Arc<Socket>, room: Uuid, partition: u32) -> Result<Joining> {
    if !socket.client.remember_room(room, chat.config.max_rooms_per_socket) {
        return Err(Error::new(Code::RateLimited, "in too many rooms; leave some first"));
    }
    let joining = chat.hub.begin_join(room, partition, socket);
    if !socket.client.is_in(room) {
        // The client disconnected between the two steps.
        chat.hub.leave(room, socket.id());
        return Err(Error::not_found("socket"));
    }
    Ok(joining)
}

async fn go_live(
    chat: &Chat,
    socket: &Arc<Socket>,
    ack: Option<u64>,
    join: &Join,
    joining: &Joining,
    partition: u32,
) -> Result<()> {
    let mut rooms = chat.clients.room.clone();
    chat.follower.follow(partition).await;
    let caller = socket.client.identity().map(|identity| identity.user.clone());
    let get = GetRoomRequest { caller, id: join.room.to_string(), moderator: false };
    let get = socket.client.credential.present().attach(grpc::request(get, chat.clients.read));
    let mut room = rooms.get_room(get).await?.into_inner();
    chat.clients.deleted.hide_in_room(&mut room);
    let marking =
        async { if room.role() == Role::Unspecified { None } else { markers::of(chat, socket, join.room).await } };
    let mut marker = None;
    let mut marking = Some(marking);
    loop {
        let reading = chat.history.read(join.room, join.history, socket.client.credential.reader());
        let page = match marking.take() {
            Some(marking) => {
                let (page, found) = tokio::join!(reading, marking);
                marker = found;
                page?
            }
            None => reading.await?,
        };
        let mine = if ack.is_some() { mine(chat, socket, join, &page).await? } else { Vec::new() };
        let answer = ack.map(|id| Frame::ack(id, &answer(join, &room, marker.as_ref(), &page, mine)));
        let arrival = Arrival::Joined { answer, epoch: page.epoch().parse().unwrap_or_default() };
        match chat.hub.go_live(joining, socket, page.last_seq(), &arrival) {
            Ok(()) => return Ok(()),
            Err(NotLive::Behind) => sleep(BEHIND).await,
            // The room still exists, but this gateway's positions are no longer valid.
            Err(NotLive::Cancelled) if socket.client.is_returning() => {
                return Err(Error::unavailable("the room's history"));
            }
            Err(NotLive::Cancelled) => return Err(Error::not_found("room")),
        }
    }
}

/// The user's own reactions to the messages of a page.
async fn mine(chat: &Chat, socket: &Socket, join: &Join, page: &Page) -> Result<Vec<Own>> {
    let Some(user) = socket.client.credential.reader() else { return Ok(Vec::new()) };
    let changed = match join.history {
        Wanted::After { after, changed_from: Some(from) } => page.changed(after, from).0,
        _ => Vec::new(),
    };
    let entries = page.events().iter().chain(changed).filter(|entry| entry.has_reactions);
    let seqs = entries.map(|entry| entry.seq).collect();
    let own = own_reactions::read(&chat.clients, join.room, (user.id, &user.credential), seqs).await?;
    Ok(own.into_iter().map(|(seq, names)| Own { seq, names }).collect())
}

fn answer<'a>(join: &Join, room: &'a Room, marker: Option<&Marker>, page: &'a Page, mine: Vec<Own>) -> Answer<'a> {
    let (epoch, last_seq) = (page.epoch(), page.last_seq());
    let reset = match join.history {
        Wanted::After { after, .. } if after > last_seq => true,
        _ => join.epoch.as_ref().is_some_and(|named| named != epoch),
    };
    let mut bytes = 0;
    let mut within = |json: &RawValue| {
        bytes += json.get().len() + 1;
        bytes <= MAX_BYTES
    };
    let events = page.events();
    // Without `after`, a client requests no changes. With `reset`, it drops the messages that may have been changed.
    let (mut changed, mut changed_complete) = (Vec::new(), true);
    let (messages, complete) = match join.history {
        _ if reset => (Vec::new(), last_seq == 0),
        Wanted::End => (Vec::new(), true),
        Wanted::After { after, changed_from } => {
            let taken = events.iter().map(|event| &*event.json).take_while(|json| within(json)).collect::<Vec<_>>();
            let complete = taken.len() == events.len() && !page.more();
            if let Some(from) = changed_from {
                let (all, is_all) = page.changed(after, from);
                changed = all.iter().map(|event| &*event.json).take_while(|json| within(json)).collect();
                changed_complete = is_all && changed.len() == all.len();
            }
            (taken, complete)
        }
        Wanted::Last(_) => {
            let mut taken =
                events.iter().rev().map(|event| &*event.json).take_while(|json| within(json)).collect::<Vec<_>>();
            taken.reverse();
            (taken, true)
        }
    };
    let room = RoomJson::new(room, last_seq, Viewer::User).with_marker(marker);
    let last_ordinal = page.last_ordinal();
    Answer { ok: true, room, last_seq, last_ordinal, epoch, messages, complete, changed, changed_complete, mine, reset }
}

#[cfg(test)]
mod tests;

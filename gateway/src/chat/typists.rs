//! Typing: the event of a client who types, and the events that show it to the clients in the room.

use std::sync::Arc;

use confab_common::{Code, Error, Result, grpc};
use confab_proto::room::v1::GetRoomRequest;
use confab_socketio::Frame;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::client::Socket;
use super::context::Chat;
use crate::limits::Act;
use crate::typing::{EXPIRES_IN, Typed};

/// Records that the client's user types, or has stopped.
///
/// # Errors
/// `not_found` for a room that does not exist or that is hidden from the user.
pub async fn typing(chat: &Chat, socket: &Socket, room: Uuid, on: bool) -> Result<()> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    // The user of a socket in a room may post there. Otherwise the question costs as much as a join.
    if !socket.client.is_in(room) {
        chat.limits.take(Act::JoinRoom, identity.user_id)?;
        let get = GetRoomRequest { caller: Some(identity.user.clone()), id: room.to_string(), moderator: false };
        let get = socket.client.credential.present().attach(grpc::request(get, chat.clients.read));
        chat.clients.room.clone().get_room(get).await?;
    }
    if !on {
        chat.typing.end(room, identity.user_id, socket.id());
        return Ok(());
    }
    let (user, username) = (identity.user_id, identity.user.username.clone());
    chat.typing.begin(Typed { room, user, username, on }, socket.id());
    if socket.is_closed() {
        // The socket left its rooms between the two steps.
        chat.typing.left(user, socket.id());
    }
    Ok(())
}

/// The client's user has posted in a room, and so no longer types.
pub fn posted(chat: &Chat, socket: &Socket, room: Uuid) {
    if let Some(identity) = socket.client.identity() {
        chat.typing.posted(room, identity.user_id);
    }
}

/// The client has left a room.
pub fn left(chat: &Chat, socket: &Socket, room: Uuid) {
    if let Some(identity) = socket.client.identity() {
        chat.typing.end(room, identity.user_id, socket.id());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypingEvent<'a> {
    room_id: Uuid,
    user: Typist<'a>,
    on: bool,
    /// In milliseconds.
    expires_in: u128,
}

#[derive(Serialize)]
struct Typist<'a> {
    id: Uuid,
    username: &'a str,
}

/// Shows who types to the clients of this gateway.
pub async fn show(chat: Arc<Chat>, mut received: Receiver<Typed>) {
    loop {
        match received.recv().await {
            Ok(typed) => show_one(&chat, &typed),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn show_one(chat: &Chat, typed: &Typed) {
    let Some(username) = chat.typing.admit(typed, chat.hub.count(typed.room)) else { return };
    let user = Typist { id: typed.user, username: &username };
    let event = TypingEvent { room_id: typed.room, user, on: typed.on, expires_in: EXPIRES_IN.as_millis() };
    chat.hub.notify(typed.room, &Frame::event("typing", &event));
}

//! Reactions of clients.

use std::sync::Arc;

use confab_common::{Code, Error, Result};
use serde::Serialize;
use tokio::time::Instant;

use super::answer::{answer, refuse};
use super::client::Socket;
use super::context::Chat;
use super::lanes::EVENT_OVERHEAD;
use crate::limits::Act;
use crate::metrics::METRICS;
use crate::new_change::NewChange;
use crate::send::Sending;
use crate::views::Reactions;

#[derive(Serialize)]
struct Accepted<'a> {
    ok: bool,
    #[serde(flatten)]
    reactions: Reactions<'a>,
}

/// Queues a reaction, and answers it when it stands. Later events of the room do not wait for it.
pub fn react(chat: &Arc<Chat>, socket: &Arc<Socket>, change: NewChange, ack: Option<u64>, deadline: Instant) {
    let sending = begin(chat, socket, change, deadline);
    let (chat, socket) = (chat.clone(), socket.clone());
    // The client's other events wait when too many of its reactions do.
    socket.client.count(&socket.outbox, EVENT_OVERHEAD);
    tokio::spawn(async move {
        let outcome = match sending {
            Ok(sending) => sending.outcome().await,
            Err(error) => Err(error),
        };
        let took = (Instant::now() + chat.clients.call.deadline).saturating_duration_since(deadline);
        METRICS.reactions.record(&outcome, took);
        match outcome {
            Ok(sent) => answer(&socket, ack, &Accepted { ok: true, reactions: (&sent.message).into() }),
            Err(error) => refuse(&socket, ack, &error),
        }
        socket.client.done(&socket.outbox, EVENT_OVERHEAD);
    });
}

fn begin(chat: &Chat, socket: &Socket, change: NewChange, deadline: Instant) -> Result<Sending> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let room = change.room;
    let event = change.into_event(identity.user.clone(), false)?;
    chat.limits.take(Act::Send, identity.user_id)?;
    let credential = socket.client.credential.present();
    chat.sender.begin(room, event, credential, deadline.saturating_duration_since(Instant::now()))
}

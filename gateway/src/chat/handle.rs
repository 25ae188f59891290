//! The handlers of client events.

use std::sync::Arc;

use confab_common::{Code, Error, Result};
use confab_socketio::Frame;
use serde::Serialize;
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{answer, refusal, refuse};
use super::client::{Socket, left};
use super::context::Chat;
use super::lanes::Pending;
use super::request::Request;
use super::{file_upload, join, renew};
use crate::limits::Act;
use crate::metrics::METRICS;
use crate::new_message::NewMessage;
use crate::send::{Sending, Sent};
use crate::views::MessageJson;

/// Above this size in bytes, acknowledgements are queued in several steps.
const LARGE: usize = 256 * 1024;

/// Handles events of one room in order: several sends together, or one event of another kind.
pub async fn handle(chat: &Arc<Chat>, socket: &Arc<Socket>, room: Uuid, events: Vec<Pending>) {
    let within = chat.clients.call.deadline;
    // The time since the event's arrival, computed from its deadline.
    let took = |deadline: Instant| (Instant::now() + within).saturating_duration_since(deadline);
    let mut sends = Vec::with_capacity(events.len());
    for event in events {
        match event.request {
            Request::Send(message) => {
                let sending = event.span.in_scope(|| begin_send(chat, socket, message, event.deadline));
                sends.push((event.ack, event.span, sending, event.deadline));
            }
            Request::Join(join) => {
                let joined = event.span.instrument(join::join(chat, socket, event.ack, join, event.deadline)).await;
                METRICS.joins.record(&joined, took(event.deadline));
                if let Err(error) = joined {
                    event.span.fail(error.code.as_str());
                    refuse(socket, event.ack, &error);
                }
            }
            Request::Leave => {
                leave(chat, socket, room, event.ack).await;
                METRICS.leaves.record(&Ok(()), took(event.deadline));
            }
            Request::Upload(file) => {
                let uploaded = event.span.instrument(Box::pin(file_upload::send(chat, socket, file))).await;
                METRICS.uploads.record(&uploaded, took(event.deadline));
                match uploaded {
                    Ok(uploaded) => answer(socket, event.ack, &uploaded.answer()),
                    Err(error) => {
                        event.span.fail(error.code.as_str());
                        refuse(socket, event.ack, &error);
                    }
                }
            }
            Request::Auth(token) => {
                let renewed = event.span.instrument(renew::renew(chat, socket, &token)).await;
                METRICS.renewals.record(&renewed, took(event.deadline));
                match renewed {
                    Ok(renewed) => answer(socket, event.ack, &renewed),
                    Err(error) => {
                        event.span.fail(error.code.as_str());
                        refuse(socket, event.ack, &error);
                    }
                }
            }
        }
    }
    // Acknowledgements of sends that were appended together are queued together, unless they are large: then the
    // client's task can write some of them in between.
    let (mut answers, mut bytes) = (Vec::with_capacity(sends.len()), 0);
    for (ack, span, sending, deadline) in sends {
        let outcome = match sending {
            Ok(sending) => sending.outcome().await,
            Err(error) => Err(error),
        };
        METRICS.messages.record(&outcome, took(deadline));
        if let Err(error) = &outcome {
            span.fail(error.code.as_str());
        }
        let answer = match (outcome, ack) {
            (Ok(sent), Some(id)) => Frame::ack(id, &Accepted::from(&sent)),
            (Ok(_), None) => continue,
            (Err(error), Some(id)) => refusal(id, &error),
            (Err(error), None) => {
                refuse(socket, None, &error);
                continue;
            }
        };
        bytes += answer.cost();
        answers.push(answer);
        if bytes > LARGE {
            socket.outbox.answer(&std::mem::take(&mut answers));
            bytes = 0;
            yield_now().await;
        }
    }
    socket.outbox.answer(&answers);
}

fn begin_send(chat: &Chat, socket: &Socket, message: NewMessage, deadline: Instant) -> Result<Sending> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let (room, event) = message.into_event(identity)?;
    chat.limits.take(Act::Send, identity.user_id)?;
    let credential = socket.client.credential.present();
    chat.sender.begin(room, event, credential, deadline.saturating_duration_since(Instant::now()))
}

async fn leave(chat: &Chat, socket: &Socket, room: Uuid, ack: Option<u64>) {
    chat.hub.leave(room, socket.id());
    left(socket, room);
    socket.outbox.space().await;
    answer(socket, ack, &json!({ "ok": true }));
}

#[derive(Serialize)]
struct Accepted<'a> {
    ok: bool,
    message: MessageJson<'a>,
    duplicate: bool,
}

impl<'a> From<&'a Sent> for Accepted<'a> {
    fn from(sent: &'a Sent) -> Self {
        Self { ok: true, message: (&sent.event).into(), duplicate: sent.duplicate }
    }
}

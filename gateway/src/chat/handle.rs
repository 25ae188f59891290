//! The handlers of client events.

use std::sync::Arc;

use confab_common::metrics::Outcomes;
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_identity::tokens::Identity;
use confab_proto::message::v1::{NewEvent, Op};
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
use super::{file_upload, join, markers, reactions, renew, typists};
use crate::limits;
use crate::metrics::METRICS;
use crate::own_reactions;
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
                let into_event = |sender: &Identity| message.into_event(sender);
                let sending = event.span.in_scope(|| begin_send(chat, socket, event.deadline, into_event));
                sends.push(Begun {
                    ack: event.ack,
                    span: event.span,
                    sending,
                    deadline: event.deadline,
                    act: Act::Message,
                });
            }
            Request::Change(change) => {
                let (act, room) = (Act::of(change.op), change.room);
                let into_event = |sender: &Identity| Ok((room, change.into_event(sender.user.clone(), false)?));
                let sending = event.span.in_scope(|| begin_send(chat, socket, event.deadline, into_event));
                sends.push(Begun { ack: event.ack, span: event.span, sending, deadline: event.deadline, act });
            }
            Request::React(change) => {
                event.span.in_scope(|| reactions::react(chat, socket, change, event.ack, event.deadline));
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
                    Ok(uploaded) => {
                        markers::authored(chat, socket, room, uploaded.seq());
                        typists::posted(chat, socket, room);
                        answer(socket, event.ack, &uploaded.answer());
                    }
                    Err(error) => {
                        event.span.fail(error.code.as_str());
                        refuse(socket, event.ack, &error);
                    }
                }
            }
            Request::Read(seq) => markers::mark(chat, socket, room, seq, event.ack, event.deadline),
            Request::Typing(on) => {
                let typed = event.span.instrument(typists::typing(chat, socket, room, on)).await;
                METRICS.typings.record(&typed, took(event.deadline));
                match typed {
                    Ok(()) => answer(socket, event.ack, &json!({ "ok": true })),
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
    for Begun { ack, span, sending, deadline, act } in sends {
        let outcome = match sending {
            Ok(sending) => sending.outcome().await,
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok(sent) if act != Act::Message || sent.duplicate => with_own_reactions(chat, socket, room, sent).await,
            outcome => outcome,
        };
        act.metric().record(&outcome, took(deadline));
        match &outcome {
            Ok(sent) if act == Act::Message && !sent.duplicate => {
                markers::authored(chat, socket, room, sent.message.seq);
                typists::posted(chat, socket, room);
            }
            Ok(_) => {}
            Err(error) => span.fail(error.code.as_str()),
        }
        let answer = match (outcome, ack) {
            (Ok(sent), Some(id)) => Frame::ack(id, &Accepted::new(&sent, act)),
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

/// Marks the client's own reactions to the message of an answer.
async fn with_own_reactions(chat: &Chat, socket: &Socket, room: Uuid, mut sent: Sent) -> Result<Sent> {
    let credential = socket.client.credential.present();
    let user = socket.client.identity().map(|identity| (identity.user_id, &credential));
    own_reactions::mark(&chat.clients, room, user, std::slice::from_mut(&mut sent.message)).await?;
    Ok(sent)
}

/// A send whose answer is pending.
struct Begun {
    ack: Option<u64>,
    span: Span,
    sending: Result<Sending>,
    deadline: Instant,
    act: Act,
}

/// What a send does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Message,
    Edit,
    Remove,
    Pin,
}

impl Act {
    fn of(op: Op) -> Self {
        match op {
            Op::Delete => Self::Remove,
            Op::Pin | Op::Unpin => Self::Pin,
            Op::Edit | Op::React | Op::Unspecified => Self::Edit,
        }
    }

    fn metric(self) -> &'static Outcomes {
        match self {
            Self::Message => &METRICS.messages,
            Self::Edit => &METRICS.edits,
            Self::Remove => &METRICS.removals,
            Self::Pin => &METRICS.pins,
        }
    }

    /// Whether the acknowledgement says that the event is a repeat. A second deletion or pin changes nothing, so a
    /// client need not tell the two apart.
    fn states_repeats(self) -> bool {
        matches!(self, Self::Message | Self::Edit)
    }
}

fn begin_send(
    chat: &Chat,
    socket: &Socket,
    deadline: Instant,
    into_event: impl FnOnce(&Identity) -> Result<(Uuid, NewEvent)>,
) -> Result<Sending> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let (room, event) = into_event(identity)?;
    chat.limits.take(limits::Act::Send, identity.user_id)?;
    let credential = socket.client.credential.present();
    chat.sender.begin(room, event, credential, deadline.saturating_duration_since(Instant::now()))
}

async fn leave(chat: &Chat, socket: &Socket, room: Uuid, ack: Option<u64>) {
    chat.hub.leave(room, socket.id());
    left(socket, room);
    typists::left(chat, socket, room);
    socket.outbox.space().await;
    answer(socket, ack, &json!({ "ok": true }));
}

#[derive(Serialize)]
struct Accepted<'a> {
    ok: bool,
    message: MessageJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

impl<'a> Accepted<'a> {
    fn new(sent: &'a Sent, act: Act) -> Self {
        let duplicate = act.states_repeats().then_some(sent.duplicate);
        Self { ok: true, message: (&sent.message).into(), duplicate }
    }
}

#[cfg(test)]
mod tests;

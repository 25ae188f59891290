//! One function for each client event.

use std::sync::Arc;

use bytes::Bytes;
use confab_common::{Code, Error, Result, text};
use confab_socketio::Frame;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::yield_now;
use tokio::time::Instant;
use uuid::Uuid;

use super::file_upload::FileUpload;
use super::join::{self, Join};
use super::session::Session;
use super::socket::Event;
use crate::draft::Draft;
use crate::metrics::METRICS;
use crate::payload::{RoomOr, read_room, read_text};
use crate::rooms::hub::Listener;
use crate::send::{Sending, Sent};
use crate::views::MessageJson;

/// Above this size in bytes, acknowledgements are written in several steps.
const LARGE: usize = 256 * 1024;

/// A client's request.
pub enum Request {
    /// `joinRoom`.
    Join(Join),
    /// `leaveRoom`.
    Leave,
    /// `message`.
    Send(Draft),
    /// `fileUpload`.
    Upload(FileUpload),
}

impl Request {
    /// The event's name in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Join(_) => "joinRoom",
            Self::Leave => "leaveRoom",
            Self::Send(_) => "message",
            Self::Upload(_) => "fileUpload",
        }
    }

    /// Whether it may share an append with other requests.
    pub fn is_send(&self) -> bool {
        matches!(self, Self::Send(_))
    }

    /// Whether the number in progress per client is bounded.
    pub fn takes_turn(&self) -> bool {
        matches!(self, Self::Send(_) | Self::Upload(_))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoomArgument {
    room_id: String,
}

/// The room and the request of an event.
///
/// # Errors
/// `not_found` for an unknown event, `invalid_request` for a payload of another shape.
pub fn parse(name: &str, argument: Option<&RawValue>, attachments: &[Bytes]) -> Result<(Uuid, Request)> {
    let argument = argument.map_or("null", RawValue::get);
    match name {
        "joinRoom" => {
            let join = Join::parse(argument)?;
            Ok((join.room, Request::Join(join)))
        }
        "leaveRoom" => {
            let room = match read_room(argument, "a room id or { roomId }")? {
                RoomOr::Id(room_id) | RoomOr::Object(RoomArgument { room_id }) => text::id("roomId", &room_id)?,
            };
            Ok((room, Request::Leave))
        }
        "message" => {
            let message: Draft = read_text(argument, "{ roomId, content, clientMessageId?, fileIds? }")?;
            Ok((text::id("roomId", &message.room_id)?, Request::Send(message)))
        }
        "fileUpload" => {
            let file = FileUpload::parse(argument, attachments)?;
            Ok((file.room, Request::Upload(file)))
        }
        _ => Err(Error::new(Code::NotFound, "no such event")),
    }
}

/// Handles events of one room in order: several sends together, or a single other event.
pub async fn handle(session: &Arc<Session>, room: Uuid, events: Vec<Event>) {
    let within = session.edge.clients.call.deadline;
    // Measured from the event's arrival, which follows from its deadline.
    let took = |deadline: Instant| (Instant::now() + within).saturating_duration_since(deadline);
    let mut sends = Vec::with_capacity(events.len());
    for event in events {
        match event.request {
            Request::Send(message) => {
                let sending = event.span.in_scope(|| begin_send(session, message, event.deadline));
                sends.push((event.ack, event.span, sending, event.deadline));
            }
            Request::Join(join) => {
                let joined = event.span.instrument(join::join(session, event.ack, join, event.deadline)).await;
                METRICS.joins.record(&joined, took(event.deadline));
                if let Err(error) = joined {
                    event.span.fail(error.code.as_str());
                    refuse(session, event.ack, &error);
                }
            }
            Request::Leave => {
                leave(session, room, event.ack).await;
                METRICS.leaves.record(&Ok(()), took(event.deadline));
            }
            Request::Upload(file) => {
                let uploaded = event.span.instrument(Box::pin(file.send(session))).await;
                METRICS.uploads.record(&uploaded, took(event.deadline));
                match uploaded {
                    Ok(uploaded) => answer(session, event.ack, &uploaded.answer()),
                    Err(error) => {
                        event.span.fail(error.code.as_str());
                        refuse(session, event.ack, &error);
                    }
                }
            }
        }
    }
    // Acknowledgements of sends that were appended together are written together, unless they are large: then the
    // client's task gets to write some in between.
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
                refuse(session, None, &error);
                continue;
            }
        };
        bytes += answer.cost();
        answers.push(answer);
        if bytes > LARGE {
            session.outbox.answer(&std::mem::take(&mut answers));
            bytes = 0;
            yield_now().await;
        }
    }
    session.outbox.answer(&answers);
}

fn begin_send(session: &Session, message: Draft, deadline: Instant) -> Result<Sending> {
    let identity = session.socket.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let (room, event) = message.into_event(identity)?;
    session.edge.sender.begin(room, event, deadline.saturating_duration_since(Instant::now()))
}

async fn leave(session: &Session, room: Uuid, ack: Option<u64>) {
    session.edge.hub.leave(room, session.id());
    session.left(room);
    session.outbox.roomy().await;
    answer(session, ack, &json!({ "ok": true }));
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

fn answer(session: &Session, ack: Option<u64>, answer: &impl Serialize) {
    if let Some(id) = ack {
        session.outbox.answer(&[Frame::ack(id, answer)]);
    }
}

/// Answers an event that was refused or failed; a client that asked for no acknowledgement receives an `error` event.
pub fn refuse(session: &Session, ack: Option<u64>, error: &Error) {
    match ack {
        Some(id) => session.outbox.push(refusal(id, error)),
        None => session.tell("error", &fault(error)),
    }
}

fn refusal(ack: u64, error: &Error) -> Frame {
    Frame::ack(ack, &json!({ "ok": false, "error": fault(error) }))
}

fn fault(error: &Error) -> Value {
    json!({ "code": error.code.as_str(), "status": error.code.http_status(), "detail": error.detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";

    fn parse_text(name: &str, argument: &str) -> Result<(Uuid, Request)> {
        let argument: Box<RawValue> = serde_json::from_str(argument).unwrap();
        parse(name, Some(&argument), &[])
    }

    #[test]
    fn payloads() {
        assert!(matches!(parse_text("leaveRoom", &format!("{ROOM:?}")), Ok((_, Request::Leave))));
        assert!(matches!(parse_text("leaveRoom", &format!(r#"{{"roomId":{ROOM:?}}}"#)), Ok((_, Request::Leave))));
        let message = format!(r#"{{"roomId":{ROOM:?},"content":"hi","seq":9,"future":[]}}"#);
        assert!(matches!(parse_text("message", &message), Ok((_, Request::Send(m))) if m.content == "hi"));
        let binary = format!(r#"{{"roomId":{ROOM:?},"content":{{"_placeholder":true,"num":0}}}}"#);
        for (name, bad) in [
            ("message", "null"),
            ("message", "{}"),
            ("message", "[]"),
            ("message", &*binary),
            ("leaveRoom", "7"),
            ("joinRoom", "null"),
            ("joinRoom", r#""x""#),
        ] {
            assert_eq!(parse_text(name, bad).err().unwrap().code, Code::InvalidRequest, "{name} {bad}");
        }
        assert_eq!(parse("nonsense", None, &[]).err().unwrap().code, Code::NotFound);
        assert_eq!(parse("message", None, &[]).err().unwrap().code, Code::InvalidRequest);
    }

    #[test]
    fn a_fault_is_named() {
        let detail = |name, argument: &str| parse_text(name, argument).err().unwrap().detail;
        assert_eq!(detail("message", r#"{"roomId":"r","content":5}"#), "content must be a string");
        assert_eq!(detail("message", r#"{"content":"x"}"#), "roomId must be given");
        assert_eq!(detail("message", r#"{"roomId":"r","content":"x","fileIds":["a",1]}"#), "fileIds[1] must be a string");
        assert_eq!(detail("message", "[]"), "the payload must be { roomId, content, clientMessageId?, fileIds? }");
        assert_eq!(detail("leaveRoom", r#"{"roomId":7}"#), "roomId must be a string");
        assert_eq!(detail("leaveRoom", "{}"), "roomId must be given");
        assert_eq!(detail("joinRoom", &format!(r#"{{"roomId":{ROOM:?},"after":"x"}}"#)), "after must be a whole number");
        assert_eq!(detail("joinRoom", r#""x""#), "roomId must be a UUID");
    }
}

//! Answers to a client's events.

use confab_common::Error;
use confab_socketio::Frame;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::Socket;

/// Acknowledges an event if its client requests an acknowledgement.
pub fn answer(socket: &Socket, ack: Option<u64>, answer: &impl Serialize) {
    if let Some(id) = ack {
        socket.acknowledge(id, answer, &[]);
    }
}

/// Answers a rejected or failed event. If the client requests no acknowledgement, it receives an `error` event.
pub fn refuse(socket: &Socket, ack: Option<u64>, error: &Error) {
    match ack {
        Some(id) => socket.outbox.push(refusal(id, error)),
        None => emit(socket, "error", &fault(error)),
    }
}

/// The acknowledgement of a rejected or failed event.
pub fn refusal(ack: u64, error: &Error) -> Frame {
    Frame::ack(ack, &json!({ "ok": false, "error": fault(error) }))
}

/// Queues an event that belongs to no room.
pub fn emit(socket: &Socket, name: &str, argument: &impl Serialize) {
    match socket.client.recovery.get() {
        Some(recovery) => {
            recovery.queue_event(&Frame::event(name, argument), |frames| socket.outbox.push_all(frames));
        }
        None => socket.emit(name, argument, &[]),
    }
}

fn fault(error: &Error) -> Value {
    error.log_cause();
    let mut fault = json!({ "code": error.code.as_str(), "status": error.code.http_status(), "detail": error.detail });
    if let Some(time) = error.retry_after {
        fault["retryAfterMs"] = json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    fault
}

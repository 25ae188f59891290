//! A session over HTTP long-polling, until it is upgraded.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::Realtime;
use super::handshake::Refusal;
use super::outbox::{Close, Outbox};
use super::session::{Heartbeat, Session, Transport};

/// Most packets of one payload: Python clients refuse more.
const MAX_PACKETS: usize = 16;
/// Between the packets of a payload.
const SEPARATOR: u8 = 0x1e;
/// How long a GET is held while an upgrade is tried.
const PROBE_HOLD: Duration = Duration::from_millis(100);
/// Longest `t` that is remembered.
const MAX_T: usize = 64;
/// Nothing to say.
const NOOP: Bytes = Bytes::from_static(b"6");
/// The session is over.
const CLOSE: Bytes = Bytes::from_static(b"1");

/// Opens a session and answers its first packet.
///
/// # Errors
/// When this gateway leaves.
pub async fn open(edge: &Arc<Realtime>, bearer: Option<Box<str>>) -> Result<Response, Refusal> {
    let session = Session::open(edge, Transport::Polling { reading: false }, bearer).ok_or(Refusal::GoingAway)?;
    tokio::spawn(watch(session.clone()));
    Ok(text(next_payload(&session).await))
}

/// A GET: answers what is queued, as soon as there is something. One that bears the same `t` as the last is the same GET, sent
/// again on its way here because its answer was lost, and gets the same bytes.
///
/// # Errors
/// When another GET is waiting already, which ends the session; or when it does not poll any more.
pub async fn poll(session: Arc<Session>, t: Option<&str>) -> Result<Response, Refusal> {
    let turn = loop {
        let over = session.last_poll.over.notified();
        if let Some(payload) = session.last_poll.payload(t) {
            return Ok(text(payload));
        }
        match Turn::take(&session, t) {
            Ok(turn) => break turn,
            // That the first try is lost may not be known yet.
            Err(Transport::Polling { .. } | Transport::Probing { .. }) if session.last_poll.is(t) => over.await,
            Err(transport) => {
                if transport != Transport::WebSocket {
                    session.finish();
                }
                return Err(Refusal::BadRequest);
            }
        }
    };
    let payload = next_payload(&session).await;
    session.last_poll.answered(&payload, &session.outbox);
    drop(turn);
    Ok(text(payload))
}

async fn next_payload(session: &Session) -> Bytes {
    loop {
        // What is asked after this, of the session or of the outbox, wakes the wait below.
        let payload = queued(session);
        let probing = matches!(*session.transport(), Transport::Probing { .. });
        let closing = session.outbox.closing();
        if let Some(payload) = payload {
            if closing == Some(Close::Flushed) && session.outbox.is_empty() {
                session.finish();
            }
            return payload;
        }
        if closing.is_some() {
            session.finish();
            return CLOSE;
        }
        let queued = poll_fn(|context| session.outbox.poll(context));
        if !probing {
            queued.await;
        } else if timeout(PROBE_HOLD, queued).await.is_err() {
            // The client waits for this GET to end before it changes over.
            return NOOP;
        }
    }
}

/// The last GET of a session and, once it is answered, its payload.
#[derive(Default)]
pub struct LastPoll {
    last: Mutex<Option<(Box<str>, Option<Bytes>)>>,
    /// It waits no longer.
    over: Notify,
}

impl LastPoll {
    fn last(&self) -> MutexGuard<'_, Option<(Box<str>, Option<Bytes>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, t: Option<&str>) -> bool {
        self.last().as_ref().is_some_and(|(last, _)| Some(&**last) == t)
    }

    fn payload(&self, t: Option<&str>) -> Option<Bytes> {
        self.last().as_ref().filter(|(last, _)| Some(&**last) == t).and_then(|(_, payload)| payload.clone())
    }

    fn begin(&self, t: Option<&str>, outbox: &Outbox) {
        *self.last() = t.filter(|t| t.len() <= MAX_T).map(|t| (t.into(), None));
        outbox.keep(0);
    }

    fn answered(&self, payload: &Bytes, outbox: &Outbox) {
        if let Some((_, answer)) = &mut *self.last() {
            *answer = Some(payload.clone());
            outbox.keep(payload.len());
        }
    }

    /// No GET of the session comes any more, or none that is to get the same bytes.
    pub fn forget(&self, outbox: &Outbox) {
        *self.last() = None;
        outbox.keep(0);
    }
}

/// Largest payload of a POST: a packet's attachments come as base64.
pub fn max_payload(max_packet: usize) -> usize {
    max_packet.div_ceil(3).saturating_mul(4)
}

/// A POST: takes the client's packets.
///
/// # Errors
/// When one is malformed or too large; that ends the session.
pub async fn receive(session: Arc<Session>, body: Bytes) -> Result<Response, Refusal> {
    session.socket.drained().await;
    let taken = take(&session, &body);
    session.socket.start_lanes(&session);
    taken.inspect_err(|_| session.finish())?;
    Ok(text("ok"))
}

fn take(session: &Arc<Session>, body: &[u8]) -> Result<(), Refusal> {
    for packet in body.split(|byte| *byte == SEPARATOR) {
        let packet = std::str::from_utf8(packet).map_err(|_| Refusal::BadRequest)?;
        match packet.strip_prefix('b') {
            Some(binary) => session.receive_binary(STANDARD.decode(binary).map_err(|_| Refusal::BadRequest)?.into())?,
            None if packet.len() > session.edge.config.max_packet => return Err(Refusal::too_large()),
            None => session.receive(packet)?,
        }
    }
    Ok(())
}

/// Keeps the clock of a session until it is upgraded or over.
async fn watch(session: Arc<Session>) {
    let mut heartbeat = Heartbeat::new(&session);
    loop {
        sleep_until(heartbeat.next(&session)).await;
        match *session.transport() {
            Transport::Polling { .. } | Transport::Probing { .. } => {}
            Transport::WebSocket | Transport::Closed => return,
        }
        if !heartbeat.tick(&session) {
            return session.finish();
        }
    }
}

/// The right to answer a GET, given back when the client goes away.
struct Turn<'a>(&'a Session);

impl<'a> Turn<'a> {
    /// The turn of the GET that bears `t`; what carries the session when there is none to be had.
    fn take(session: &'a Session, t: Option<&str>) -> Result<Self, Transport> {
        let mut transport = session.transport();
        match &mut *transport {
            Transport::Polling { reading } | Transport::Probing { reading } if !*reading => *reading = true,
            other => return Err(*other),
        }
        session.last_poll.begin(t, &session.outbox);
        Ok(Self(session))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Transport::Polling { reading } | Transport::Probing { reading } = &mut *self.0.transport() {
            *reading = false;
        }
        self.0.last_poll.over.notify_waiters();
    }
}

/// What is queued, as one payload.
fn queued(session: &Session) -> Option<Bytes> {
    let frames = session.outbox.take_some(MAX_PACKETS, session.edge.config.max_packet);
    let packets = frames.iter().map(|frame| frame.packet()).collect::<Vec<_>>();
    (!packets.is_empty()).then(|| packets.join(&SEPARATOR).into())
}

fn text(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], body.into()).into_response()
}

#[cfg(test)]
mod tests;

//! A session over HTTP long-polling, until it is upgraded.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until, timeout};

use super::payload::{self, Packet, SEPARATOR, packets};
use crate::application::Application;
use crate::ending::Ending;
use crate::frame::Frame;
use crate::heartbeat::Heartbeat;
use crate::last_poll::{Way, is_clock};
use crate::metrics::METRICS;
use crate::net::ClientAddress;
use crate::net::wire::Fate;
use crate::outbox::Close;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::session::Session;
use crate::transport::Transport;

use super::READ_STALL_LIMIT;

/// Most packets of one payload: Python clients refuse more.
const MAX_PACKETS: usize = 16;
/// How long a GET is held while an upgrade is tried.
const PROBE_HOLD: Duration = Duration::from_millis(100);
/// How often a session without a GET is checked while nothing waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(2500);
/// Answers a GET for which there is nothing.
const NOOP: Bytes = Bytes::from_static(b"6");
/// Answers the GET that learns of the end of a session.
const CLOSE: Bytes = Bytes::from_static(b"1");

/// Opens a session and answers its first packet.
///
/// # Errors
/// When the server is draining.
pub async fn open<A: Application>(
    server: &Arc<Server<A>>,
    address: ClientAddress,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let session = server.open(Transport::POLLING, address, headers).ok_or(Refusal::GoingAway)?;
    tokio::spawn(watch(server.clone(), session.clone()));
    let payload = next_payload(server, &session).await;
    Ok(answer(&session, payload))
}

/// A GET: returns the queued packets as soon as there are any. A repeat of the last GET, whose answer was lost, gets
/// the same bytes: see [`last_poll`](crate::last_poll).
///
/// # Errors
/// When another GET is already waiting, or the last answer waits for its connection and does not leave, which ends the
/// session; when the session is not polling any more; or when a lost answer cannot be distinguished from one that arrived.
pub async fn poll<A: Application>(
    server: &Arc<Server<A>>,
    session: Arc<Session<A::Client>>,
    t: Option<&str>,
    way: Way,
) -> Result<Response, Refusal> {
    let mut came_meanwhile = false;
    let turn = loop {
        let over = session.last_poll.over.notified();
        if let Some((payload, last_way)) = session.last_poll.answer(t) {
            let is_clock = t.is_some_and(is_clock);
            let fate = if came_meanwhile { Fate::Lost } else { server.fate(&last_way, session.sid()).await };
            match fate {
                Fate::Lost if is_clock && !came_meanwhile => {
                    tracing::debug!(
                        "a poll's answer was lost, and its repeat cannot be distinguished from the next poll"
                    );
                    server.close(&session, Ending::AnswerLost);
                    return Err(Refusal::UnknownSession);
                }
                Fate::Unknown if is_clock => {}
                Fate::Lost | Fate::Unknown if session.last_poll.repeated(&payload, way.clone()) => {
                    return Ok(answer(&session, payload));
                }
                Fate::Lost | Fate::Unknown => continue,
                Fate::Delivered => {}
            }
        } else if let Some(way) = session.last_poll.untaken()
            && server.fate(&way, session.sid()).await == Fate::Lost
        {
            // Each further poll would leave another payload in memory.
            METRICS.outbox_closes.hit("stuck");
            server.close(&session, Ending::Stuck);
            return Err(Refusal::UnknownSession);
        }
        match Turn::take(&session, t) {
            Ok(turn) => break turn,
            // The loss of the first GET may not have been noticed yet.
            Err(Transport::Polling { .. } | Transport::Probing { .. }) if session.last_poll.is(t) => {
                came_meanwhile = true;
                over.await;
            }
            Err(transport) => {
                if transport != Transport::WebSocket {
                    server.close(&session, Ending::Malformed);
                }
                return Err(Refusal::BadRequest);
            }
        }
    };
    let payload = next_payload(server, &session).await;
    session.last_poll.answered(&payload, way, &session.outbox);
    drop(turn);
    Ok(answer(&session, payload))
}

async fn next_payload<A: Application>(server: &Server<A>, session: &Arc<Session<A::Client>>) -> Bytes {
    loop {
        // Changes of the session or the outbox after this point wake the wait below.
        let payload = queued(session, server.config.max_packet);
        let probing = matches!(*session.transport(), Transport::Probing { .. });
        let closing = session.outbox.closing();
        if let Some(payload) = payload {
            if closing == Some(Close::Flushed) && session.outbox.is_empty() {
                server.close(session, Ending::ConnectionLost);
            }
            return payload;
        }
        if closing.is_some() {
            server.close(session, Ending::ConnectionLost);
            // A client that closes the session waits for the end of its GET alone.
            return if session.is_given_up() { NOOP } else { CLOSE };
        }
        let queued = poll_fn(|context| session.outbox.poll(context));
        if !probing {
            queued.await;
        } else if timeout(PROBE_HOLD, queued).await.is_err() {
            // The client waits for this GET to end before it upgrades.
            return NOOP;
        }
    }
}

/// A POST: handles the client's packets.
///
/// # Errors
/// When a packet is malformed or too large, or takes too long to arrive; that ends the session.
pub async fn receive<A: Application>(
    server: &Arc<Server<A>>,
    session: Arc<Session<A::Client>>,
    body: Body,
) -> Result<Response, Refusal> {
    tokio::select! {
        () = server.app.resumed(&session) => {}
        () = session.outbox.closed() => return Err(Refusal::BadRequest),
    }
    let payload = payload::read(&session, server.max_packet(&session), body).await;
    let taken = payload.and_then(|payload| take(server, &session, &payload));
    server.settled(&session);
    taken.inspect_err(|refusal| server.close(&session, refusal.ending()))?;
    if session.is_given_up() && !session.transport().is_reading() {
        server.close(&session, Ending::ClientClosed);
    }
    Ok(text("ok"))
}

fn take<A: Application>(server: &Server<A>, session: &Arc<Session<A::Client>>, payload: &[u8]) -> Result<(), Refusal> {
    for packet in packets(payload, server.config.max_packet) {
        match packet? {
            Packet::Text(text) => server.receive(session, text)?,
            Packet::Binary(data) => server.receive_binary(session, data)?,
        }
    }
    Ok(())
}

/// Runs the timers of a session until it is upgraded or over.
async fn watch<A: Application>(server: Arc<Server<A>>, session: Arc<Session<A::Client>>) {
    let mut heartbeat = Heartbeat::new(&server.config);
    // Since when frames have waited without a GET.
    let mut unread: Option<Instant> = None;
    loop {
        let changed = session.outbox.changed();
        let reading = match *session.transport() {
            Transport::Polling { reading } | Transport::Probing { reading } => reading,
            Transport::WebSocket | Transport::Closed => return,
        };
        let now = Instant::now();
        let was_taken = session.outbox.was_taken();
        let before = unread.filter(|_| !was_taken);
        unread = if reading || session.outbox.is_empty() { None } else { before.or(Some(now)) };
        if unread.is_some_and(|since| since.elapsed() >= READ_STALL_LIMIT) {
            METRICS.outbox_closes.hit("stuck");
            return server.close(&session, Ending::Stuck);
        }
        if let Err(ending) = heartbeat.tick(&server.app, &server.config, &session) {
            return server.close(&session, ending);
        }
        let mut next = heartbeat.next(&*server.app, &session);
        if let Some(since) = unread {
            next = next.min(since + READ_STALL_LIMIT);
        } else if !reading {
            next = next.min(now + LOOK_AGAIN);
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed => {}
        }
        // The client may have upgraded meanwhile: what waited has left over the WebSocket.
    }
}

/// The right to answer a GET, returned when the client disconnects.
struct Turn<'a, C>(&'a Session<C>);

impl<'a, C> Turn<'a, C> {
    /// The turn of the GET with this `t`; when there is none, the transport that the session is on.
    fn take(session: &'a Session<C>, t: Option<&str>) -> Result<Self, Transport> {
        let mut transport = session.transport();
        match &mut *transport {
            Transport::Polling { reading } | Transport::Probing { reading } if !*reading => *reading = true,
            other => return Err(*other),
        }
        session.last_poll.begin(t, &session.outbox);
        Ok(Self(session))
    }
}

impl<C> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        if let Transport::Polling { reading } | Transport::Probing { reading } = &mut *self.0.transport() {
            *reading = false;
        }
        self.0.outbox.got();
        self.0.last_poll.over.notify_waiters();
    }
}

/// The queued packets, as one payload.
fn queued<C>(session: &Session<C>, most: usize) -> Option<Bytes> {
    let frames = session.outbox.take_some(MAX_PACKETS, most);
    let packets = frames.iter().map(Frame::polling).collect::<Vec<_>>();
    (!packets.is_empty()).then(|| packets.join(&SEPARATOR).into())
}

/// A payload, counted for the session's client until its connection has taken it.
fn answer<C>(session: &Session<C>, payload: Bytes) -> Response {
    let mut answer = text(payload);
    if let Some(holder) = session.outbox.share().holder() {
        answer.extensions_mut().insert(holder);
    }
    answer
}

fn text(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], body.into()).into_response()
}

#[cfg(test)]
mod tests;

//! A session over HTTP long-polling, until its upgrade.

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
use crate::last_poll::{Route, is_clock};
use crate::metrics::METRICS;
use crate::net::ClientAddress;
use crate::net::wire::Outcome;
use crate::outbox::Close;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::session::Session;
use crate::transport::Transport;

use super::READ_STALL_LIMIT;

/// Maximum number of packets in one payload. Python clients reject more.
const MAX_PACKETS: usize = 16;
/// How long a GET waits while the client probes a WebSocket.
const PROBE_HOLD: Duration = Duration::from_millis(100);
/// How often a session without a GET is checked while no frame is queued.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);
/// The answer to a GET when no frame is queued: a noop packet.
const NOOP: Bytes = Bytes::from_static(b"6");
/// The answer to a GET when the session ends: a close packet.
const CLOSE: Bytes = Bytes::from_static(b"1");

/// Opens a session and answers with its first packet.
///
/// # Errors
/// [`Refusal::GoingAway`] while the server drains.
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

/// Handles a GET: returns the queued packets, or waits for the first one. A repeat of the last GET, whose answer was
/// lost, receives the same bytes: see [`last_poll`](crate::last_poll).
///
/// # Errors
/// These end the session: another GET is pending; the client has not read the last answer within 1 s; or a lost answer
/// cannot be distinguished from one that arrived. A session that no longer polls rejects the request and continues.
pub async fn poll<A: Application>(
    server: &Arc<Server<A>>,
    session: Arc<Session<A::Client>>,
    t: Option<&str>,
    route: Route,
) -> Result<Response, Refusal> {
    let mut is_concurrent = false;
    let turn = loop {
        let over = session.last_poll.over.notified();
        if let Some((payload, last_route)) = session.last_poll.answer(t) {
            let is_clock = t.is_some_and(is_clock);
            let outcome = if is_concurrent { Outcome::Lost } else { server.outcome(&last_route, session.sid()).await };
            match outcome {
                Outcome::Lost if is_clock && !is_concurrent => {
                    tracing::debug!(
                        "the answer to a poll was lost, and its repeat cannot be distinguished from the next poll"
                    );
                    server.close(&session, Ending::AnswerLost);
                    return Err(Refusal::UnknownSession);
                }
                Outcome::Unknown if is_clock => {}
                Outcome::Lost | Outcome::Unknown if session.last_poll.repeated(&payload, route.clone()) => {
                    return Ok(answer(&session, payload));
                }
                Outcome::Lost | Outcome::Unknown => continue,
                Outcome::Delivered => {}
            }
        } else if let Some(route) = session.last_poll.unsent_route()
            && server.outcome(&route, session.sid()).await == Outcome::Lost
        {
            // Each further poll would keep another unread payload in memory.
            METRICS.outbox_closes.hit("stuck");
            server.close(&session, Ending::Stuck);
            return Err(Refusal::UnknownSession);
        }
        match Turn::take(&session, t) {
            Ok(turn) => break turn,
            // This may be a repeat, and the server may not have noticed yet that the first GET is lost.
            Err(Transport::Polling { .. } | Transport::Probing { .. }) if session.last_poll.is(t) => {
                is_concurrent = true;
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
    session.last_poll.answered(&payload, route, &session.outbox);
    drop(turn);
    Ok(answer(&session, payload))
}

async fn next_payload<A: Application>(server: &Server<A>, session: &Arc<Session<A::Client>>) -> Bytes {
    loop {
        // Later changes of the session or the outbox end the wait below.
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
            // A client that has closed the session only waits for the end of its GET.
            return if session.is_closed_by_client() { NOOP } else { CLOSE };
        }
        let queued = poll_fn(|context| session.outbox.poll(context));
        if !probing {
            queued.await;
        } else if timeout(PROBE_HOLD, queued).await.is_err() {
            // The client upgrades only after this GET ends.
            return NOOP;
        }
    }
}

/// Handles a POST: the client's packets.
///
/// # Errors
/// A packet that is malformed, too large or too slow. It ends the session.
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
    if session.is_closed_by_client() && !session.transport().is_reading() {
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

/// Runs the timers of a session until its upgrade or its end.
async fn watch<A: Application>(server: Arc<Server<A>>, session: Arc<Session<A::Client>>) {
    let mut heartbeat = Heartbeat::new(&server.config);
    // The time since when frames have been queued without a GET.
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
            next = next.min(now + CHECK_INTERVAL);
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed => {}
        }
        // If the client has upgraded meanwhile, the WebSocket has sent the queued frames.
    }
}

/// The right to answer a GET. It is released when the answer is ready or the client disconnects.
struct Turn<'a, C>(&'a Session<C>);

impl<'a, C> Turn<'a, C> {
    /// Acquires the turn for the GET with this `t`.
    ///
    /// # Errors
    /// The session's transport, when another GET is pending or the session does not poll.
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
        self.0.outbox.get_ended();
        self.0.last_poll.over.notify_waiters();
    }
}

/// The queued packets as one payload; `None` when no packet is queued.
fn queued<C>(session: &Session<C>, most: usize) -> Option<Bytes> {
    let frames = session.outbox.take_some(MAX_PACKETS, most);
    let packets = frames.iter().map(Frame::polling).collect::<Vec<_>>();
    (!packets.is_empty()).then(|| packets.join(&SEPARATOR).into())
}

/// The response with a payload. Its bytes count for the session's client until the connection has sent them.
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

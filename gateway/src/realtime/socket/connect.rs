//! CONNECT: identifies the client, and decides whether it may connect or be recovered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error};
use confab_socketio::Frame;
use confab_socketio::RateLimit;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Held, Phase, Socket, dispatch};
use crate::metrics::METRICS;
use crate::realtime::events;
use crate::realtime::outbox::Close;
use crate::realtime::recovery::{Offset, Recovery, Restored, restore};
use crate::realtime::registry::NotSignedIn;
use crate::realtime::session::{Session, Transport, secret};
use crate::rooms::hub::Listener;

/// How long a client that connects again waits for the end of its earlier events.
const FINISHING: Duration = Duration::from_secs(1);

/// The payload of CONNECT. Values of an unexpected type count as missing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Auth {
    token: Value,
    /// Whether the client wants to be recovered after its connection breaks.
    recovery: Value,
    /// What it kept of its last connection.
    pid: Value,
    offset: Value,
}

impl Auth {
    /// Reads the packet's data.
    pub(super) fn read(data: &str) -> Self {
        serde_json::from_str(data).unwrap_or_default()
    }

    fn offset(&self, user: &str) -> Option<Offset> {
        Offset::decode(self.offset.as_str()?, self.pid.as_str()?, user)
    }
}

/// Answers CONNECT. Events that arrived meanwhile are handled after it.
pub(super) async fn connect(session: Arc<Session>, auth: Auth) {
    let edge = &session.edge;
    let bearer = session.socket.take_bearer(&session);
    let verified = match auth.token.as_str().or(bearer.as_deref()) {
        Some(token) => edge.tokens.verify_to_stay(token).await,
        None => Err(Error::new(Code::Unauthorized, "a token is required: auth: { token }")),
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(error) if error.code == Code::Unauthorized => return refuse_connect(&session, &error),
        Err(_) => {
            METRICS.connects.hit("unavailable");
            // Not the client's fault: it must reconnect on its own.
            return session.outbox.close(Close::Now);
        }
    };
    if *session.transport() == Transport::Closed {
        return;
    }
    let is_revoked = || edge.revocations.is_revoked(identity.session_id);
    let signed_in = edge.registry.sign_in(&session, &identity, edge.config.max_sockets_per_user, is_revoked);
    if signed_in == Err(NotSignedIn::TooMany) {
        METRICS.connects.hit("limited");
        LIMITS.hit("sockets_per_user");
        return session.outbox.close(Close::Now);
    }
    let user = identity.user.id.clone();
    let _ = session.socket.identity.set(identity);
    session.outbox.is_known();
    if *session.transport() == Transport::Closed {
        // The client disconnected while its token was verified, before the session knew its user.
        return edge.registry.remove(&session, session.socket.identity());
    }
    if signed_in == Err(NotSignedIn::Revoked) {
        return refuse_connect(&session, &Error::new(Code::Unauthorized, "the token has been revoked"));
    }
    let restored = match auth.recovery == true {
        true => recover(&session, auth.offset(&user), &user).await,
        false => None,
    };
    session.socket.state.lock().rate_limit = RateLimit::new(edge.config.max_events_per_second);
    if !admit(&session, restored.is_some()) {
        return;
    }
    if let Some(restored) = restored
        && !restored.go_live(&session).await
    {
        return session.outbox.close(Close::Now);
    }
    session.socket.start_lanes(&session);
}

/// Answers CONNECT after the client's DISCONNECT. Another token, recovery, and earlier events that may still be answered
/// under the ids of new ones need a new session: the client opens one by itself once this one is closed.
pub(super) async fn connect_again(session: Arc<Session>, auth: Auth) {
    let (socket, edge) = (&session.socket, &session.edge);
    let verified = match auth.token.as_str() {
        Some(token) => edge.tokens.verify_to_stay(token).await,
        None => return session.outbox.close(Close::Now),
    };
    let shown = match verified {
        Ok(shown) => shown.session_id,
        Err(error) if error.code == Code::Unauthorized => return refuse_connect(&session, &error),
        Err(_) => return session.outbox.close(Close::Now),
    };
    if edge.revocations.is_revoked(shown) {
        return refuse_connect(&session, &Error::new(Code::Unauthorized, "the token has been revoked"));
    }
    let is_same = socket.identity().is_some_and(|identity| identity.session_id == shown);
    if !is_same || auth.recovery == true || socket.recovery.get().is_some() {
        return session.outbox.close(Close::Now);
    }
    if timeout(FINISHING, earlier_events(socket)).await.is_err() {
        return session.outbox.close(Close::Now);
    }
    if admit(&session, false) {
        socket.start_lanes(&session);
    }
}

/// Completes when all that arrived before the client's DISCONNECT is done: an event ends a moment after its acknowledgement
/// has left.
async fn earlier_events(socket: &Socket) {
    while socket.queued.load(Ordering::Relaxed) > socket.state.lock().held.iter().map(Held::size).sum::<usize>() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Recovers the client if its offset allows; from now on its events carry offsets.
async fn recover(session: &Arc<Session>, offset: Option<Offset>, user: &str) -> Option<Restored> {
    let restored = match &offset {
        Some(offset) => restore(session, offset).await,
        None => None,
    };
    let offset = offset.filter(|_| restored.is_some()).unwrap_or_else(|| Offset::new(user));
    let _ = session.socket.recovery.set(Box::new(Recovery::new(offset)));
    restored
}

/// Connects the client; `false` when it has disconnected.
fn admit(session: &Session, is_back: bool) -> bool {
    let mut state = session.socket.state.lock();
    if state.phase != Phase::Connecting {
        return false;
    }
    state.phase = Phase::Connected;
    session.socket.drained.notify_waiters();
    METRICS.connects.hit("accepted");
    tracing::debug!(session = session.id(), user = session.socket.identity().map(|identity| &identity.user.id), "socket connected");
    let recovery = session.socket.recovery.get();
    // This frame must be the first: stock clients buffer anything before it, and would keep it for the next connection
    // if this one broke now.
    session.outbox.push(Frame::connected(&secret(), recovery.map(|recovery| recovery.pid()).as_deref()));
    if let Some(recovery) = recovery.filter(|_| !is_back) {
        recovery.begin(|frames| session.outbox.push_all(frames));
    }
    let mut refused = Vec::new();
    for held in std::mem::take(&mut state.held) {
        match held {
            Held::Event(room, event) => dispatch(&mut state, room, event),
            Held::Refusal(..) => refused.push(held),
        }
    }
    drop(state);
    for held in refused {
        let size = held.size();
        if let Held::Refusal(ack, error) = held {
            events::refuse(session, ack, &error);
        }
        session.socket.done(session, size);
    }
    true
}

fn refuse_connect(session: &Session, error: &Error) {
    METRICS.connects.hit("refused");
    let data = json!({ "code": error.code.as_str(), "status": error.code.http_status() });
    session.socket.drop_events(session);
    session.outbox.push(Frame::connect_error("/", &json!({ "message": error.detail, "data": data })));
    session.outbox.close(Close::Flushed);
}

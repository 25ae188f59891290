//! CONNECT: who the client is, and whether it may come in.

use std::sync::Arc;

use confab_common::{Code, Error};
use serde_json::json;

use super::{Phase, dispatch};
use crate::realtime::outbox::Close;
use crate::realtime::packet::Frame;
use crate::realtime::session::{Session, Transport, secret};

/// Answers CONNECT. Events that came meanwhile are handled after it.
pub(super) async fn connect(session: Arc<Session>, token: Option<String>) {
    let edge = &session.edge;
    let verified = match &token {
        Some(token) => edge.tokens.verify(token).await,
        None => Err(Error::new(Code::Unauthorized, "a token is required: auth: { token }")),
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(error) if error.code == Code::Unauthorized => return refuse_connect(&session, &error),
        // Not the client's fault: it is to come back by itself.
        Err(_) => return session.outbox.close(Close::Now),
    };
    if *session.transport() == Transport::Closed {
        return;
    }
    if !edge.registry.sign_in(&session, &identity, edge.config.max_sockets_per_user) {
        metrics::counter!("confab_limits_total", "limit" => "sockets_per_user").increment(1);
        return session.outbox.close(Close::Now);
    }
    // Registered first, then asked: a logout in between is seen by one of the two.
    let revoked = edge.revocations.is_revoked(&identity.session_id);
    let _ = session.socket.identity.set(identity);
    if *session.transport() == Transport::Closed {
        // It went while its token was looked at, without knowing whom to sign out.
        return edge.registry.remove(&session, session.socket.identity());
    }
    if revoked {
        return refuse_connect(&session, &Error::new(Code::Unauthorized, "the token has been revoked"));
    }
    let mut state = session.socket.state();
    if state.phase != Phase::Connecting {
        return;
    }
    state.phase = Phase::Connected;
    session.outbox.push(Frame::connected(&secret()));
    for (room, event) in std::mem::take(&mut state.held) {
        dispatch(&mut state, room, event);
    }
    drop(state);
    session.socket.start_lanes(&session);
}

fn refuse_connect(session: &Session, error: &Error) {
    let data = json!({ "code": error.code.as_str(), "status": error.code.http_status() });
    session.socket.drop_events();
    session.outbox.push(Frame::connect_error("/", &json!({ "message": error.detail, "data": data })));
    session.outbox.close(Close::Flushed);
}

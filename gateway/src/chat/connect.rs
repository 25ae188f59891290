//! CONNECT: identifies the client, and accepts, recovers or rejects it.

use std::sync::Arc;
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error};
use confab_socketio::Ending;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::refuse;
use super::client::Socket;
use super::context::Chat;
use super::recovery::{Offset, Recovery};
use super::renew::adopt;
use super::restore::{Restored, restore};
use super::sign_ins::{MaxSockets, NotSignedIn};
use super::work::start_lanes;
use crate::metrics::METRICS;

/// How long a repeated CONNECT waits until the client's earlier events are finished.
const FINISHES_WITHIN: Duration = Duration::from_secs(1);

/// The payload of CONNECT. Values of an unexpected type count as missing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    token: Value,
    /// Whether the client requests recovery.
    recovery: Value,
    /// The pid of the client's last connection, and the offset of the last event that it received.
    pid: Value,
    offset: Value,
}

impl Auth {
    /// Parses the payload.
    pub fn read(data: &str) -> Self {
        serde_json::from_str(data).unwrap_or_default()
    }

    fn offset(&self, user: &str) -> Option<Offset> {
        Offset::decode(self.offset.as_str()?, self.pid.as_str()?, user)
    }
}

/// Answers CONNECT, then starts the events that arrived meanwhile.
pub async fn connect(chat: Arc<Chat>, socket: Arc<Socket>, auth: Auth) {
    let bearer = socket.client.take_bearer(&socket.outbox);
    let verified = match auth.token.as_str().or(bearer.as_deref()) {
        Some(token) => chat.tokens.verify_to_stay(token).await,
        None => Err(Error::new(Code::Unauthorized, "a token is required: auth: { token }")),
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(error) if error.code == Code::Unauthorized => return refuse_connect(&socket, &error),
        Err(error) => {
            error.log_cause();
            METRICS.connects.hit("unavailable");
            // The client did nothing wrong, so it must reconnect by itself.
            return socket.close_now(Ending::Returned);
        }
    };
    if socket.is_closed() {
        return;
    }
    let is_revoked = || {
        // The task that disconnects revoked sockets skips those without an identity, so this precedes the check.
        socket.client.identify(identity.clone());
        chat.revocations.cause(identity.user_id, identity.sign_in()).is_some()
    };
    let (per_user, per_address) = (chat.config.max_sockets_per_user, chat.config.max_sockets_per_address);
    let signed_in = chat.sign_ins.add(&socket, &identity, MaxSockets { per_user, per_address }, is_revoked);
    let exceeded = match signed_in {
        Err(NotSignedIn::TooManyOfUser) => Some("sockets_per_user"),
        Err(NotSignedIn::TooManyOfAddress) => Some("sockets_per_address"),
        Err(NotSignedIn::Revoked) | Ok(()) => None,
    };
    if let Some(limit) = exceeded {
        METRICS.connects.hit("limited");
        LIMITS.hit(limit);
        return socket.close_now(Ending::Returned);
    }
    let (user, user_id) = (identity.user.id, identity.user_id);
    chat.registry.identify(&socket, user_id);
    if socket.is_closed() {
        // The session ended during the verification, before the socket had an identity.
        return chat.forget_sign_in(&socket);
    }
    if signed_in == Err(NotSignedIn::Revoked) {
        return refuse_connect(&socket, &Error::new(Code::Unauthorized, "the token has been revoked"));
    }
    let restored = if auth.recovery == true { recover(&chat, &socket, auth.offset(&user), &user).await } else { None };
    if !admit(&socket, restored.is_some()) {
        return;
    }
    if let Some(restored) = restored
        && !restored.go_live(&chat, &socket).await
    {
        return socket.close_now(Ending::Returned);
    }
    start_lanes(&chat, &socket);
}

/// Answers CONNECT after the client's DISCONNECT. The client needs a new session if it presents a token of another
/// sign-in, requests recovery, or has unfinished earlier events, whose acknowledgements could have the ids of new
/// events. In these cases the gateway closes this session, and the client opens a new one by itself. A newer token of
/// the same sign-in replaces the present one.
pub async fn connect_again(chat: Arc<Chat>, socket: Arc<Socket>, auth: Auth) {
    let client = &socket.client;
    let verified = match auth.token.as_str() {
        Some(token) => chat.tokens.verify_to_stay(token).await,
        None => return socket.close_now(Ending::Returned),
    };
    let shown = match verified {
        Ok(shown) => shown,
        Err(error) if error.code == Code::Unauthorized => return refuse_connect(&socket, &error),
        Err(_) => return socket.close_now(Ending::Returned),
    };
    if chat.revocations.cause(shown.user_id, shown.sign_in()).is_some() {
        return refuse_connect(&socket, &Error::new(Code::Unauthorized, "the token has been revoked"));
    }
    let is_same = client.identity().is_some_and(|identity| identity.user_id == shown.user_id)
        && client.credential.sign_in().is_some_and(|sign_in| sign_in.session_id == shown.session_id);
    if !is_same || auth.recovery == true || client.recovery.get().is_some() {
        return socket.close_now(Ending::Returned);
    }
    if timeout(FINISHES_WITHIN, client.earlier_events()).await.is_err() {
        return socket.close_now(Ending::Returned);
    }
    adopt(&chat, &socket, &shown);
    if admit(&socket, false) {
        start_lanes(&chat, &socket);
    }
}

/// Recovers the client if its offset allows this. From now on its events contain offsets.
async fn recover(chat: &Arc<Chat>, socket: &Arc<Socket>, offset: Option<Offset>, user: &str) -> Option<Restored> {
    let restored = match &offset {
        Some(offset) => restore(chat, socket, offset).await,
        None => None,
    };
    let offset = offset.filter(|_| restored.is_some()).unwrap_or_else(|| Offset::new(user));
    let _ = socket.client.recovery.set(Box::new(Recovery::new(offset)));
    restored
}

/// Accepts CONNECT; `false` when the client has disconnected. `is_back` is whether the client is recovered.
fn admit(socket: &Socket, is_back: bool) -> bool {
    let (client, outbox) = (&socket.client, &socket.outbox);
    let recovery = client.recovery.get();
    let mut state = client.state();
    if !socket.accept(recovery.map(|recovery| recovery.pid()).as_deref()) {
        return false;
    }
    client.notify_drained();
    METRICS.connects.hit("accepted");
    tracing::debug!(
        session = socket.id(),
        user = client.identity().map(|identity| &identity.user.id),
        "socket connected"
    );
    if let Some(recovery) = recovery.filter(|_| !is_back) {
        recovery.begin(|frames| outbox.push_all(frames));
    }
    let refusals = state.connect();
    drop(state);
    for refused in refusals {
        refuse(socket, refused.ack, &refused.error);
        client.done(outbox, refused.size());
    }
    true
}

fn refuse_connect(socket: &Socket, error: &Error) {
    METRICS.connects.hit("refused");
    let data = json!({ "code": error.code.as_str(), "status": error.code.http_status() });
    socket.client.drop_events(&socket.outbox);
    socket.refuse(&json!({ "message": error.detail, "data": data }));
}

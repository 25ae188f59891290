//! Chat as the application of the Socket.IO server.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use confab_common::telemetry::trace::{self, Span};
use confab_common::{Code, Error};
use confab_identity::revocations::Revoked;
use confab_identity::tokens::{MAX_TOKEN, bearer};
use confab_socketio::net::ClientAddress;
use confab_socketio::{Application, Event, Malformed};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::answer::{emit, refuse};
use super::client::{Client, Socket, Stage};
use super::connect::{Auth, connect, connect_again};
use super::context::Chat;
use super::lanes::{EVENT_OVERHEAD, Pending, Refused};
use super::work::start_lanes;
use super::{markers, pause, request, typists};
use crate::edge::cors::is_own;

impl Chat {
    /// Starts the tasks that disconnect the sockets of revoked tokens and detect pauses of the process. Must be
    /// called before the first client can connect, so that no revocation is missed.
    pub fn start_tasks(self: &Arc<Self>) {
        tokio::spawn(self.clone().end_revoked(self.revocations.subscribe()));
        tokio::spawn(pause::watch(self.clone()));
        tokio::spawn(markers::show(self.clone(), self.marks.subscribe()));
        tokio::spawn(typists::show(self.clone(), self.typing.subscribe()));
    }

    async fn end_revoked(self: Arc<Self>, mut revoked: UnboundedReceiver<Revoked>) {
        while let Some(revoked) = revoked.recv().await {
            let sockets = match revoked {
                Revoked::Session(session_id) => self.sign_ins.of(session_id),
                Revoked::User(user_id) => self.sign_ins.of_user(user_id),
            };
            sockets.iter().for_each(|socket| self.end_if_revoked(socket));
        }
    }
}

impl Application for Chat {
    type Client = Client;

    /// Admits pages of the request's own host and of allowed origins, and requests without `Origin`: only browsers send
    /// it.
    fn may_connect(&self, head: &Parts) -> bool {
        let Some(origin) = head.headers.get(ORIGIN) else { return true };
        is_own(origin, &head.uri, &head.headers) || self.origins.allows(origin)
    }

    /// Keeps the token of the first request, if it has one. A token that is longer than any valid token is replaced
    /// with an empty one, which CONNECT rejects.
    fn open(&self, headers: &HeaderMap, address: ClientAddress) -> (Client, usize) {
        let token = headers.get(AUTHORIZATION).and_then(bearer);
        let token = token
            .map(|token| Box::<str>::from(Some(token).filter(|token| token.len() <= MAX_TOKEN).unwrap_or_default()));
        let bytes = token.as_ref().map_or(0, |token| token.len());
        (Client::new(token, address), bytes)
    }

    fn connect(self: &Arc<Self>, socket: &Arc<Socket>, auth: &str) {
        socket.client.begin_connect();
        let (chat, auth) = (self.clone(), Auth::read(auth));
        if socket.is_known() {
            tokio::spawn(connect_again(chat, socket.clone(), auth));
            return;
        }
        let (span, connecting) = (Span::root(trace::Kind::Server, "connect"), connect(chat, socket.clone(), auth));
        tokio::spawn(async move { span.instrument(connecting).await });
    }

    fn event(self: &Arc<Self>, socket: &Arc<Socket>, event: Event<'_>) -> Result<(), Malformed> {
        let parsed = if event.over_limit {
            Err(Error::new(Code::RateLimited, "too many events"))
        } else {
            request::parse(&event.name, event.argument, event.attachments)
        };
        let (room, request) = match parsed {
            Ok(valid) => valid,
            Err(error) => {
                if let Some(refused) = socket.client.take_refused(&socket.outbox, Refused { ack: event.ack, error }) {
                    refuse(socket, refused.ack, &refused.error);
                }
                return Ok(());
            }
        };
        let deadline = Instant::now() + self.clients.call.deadline;
        let span = Span::root(trace::Kind::Server, request.name());
        if !room.is_nil() {
            span.set("confab.room.id", || room.to_string());
        }
        let pending = Pending { ack: event.ack, request, deadline, span, size: event.size + EVENT_OVERHEAD };
        socket.client.take(&socket.outbox, room, pending)
    }

    fn settled(self: &Arc<Self>, socket: &Arc<Socket>) {
        start_lanes(self, socket);
    }

    fn left(self: &Arc<Self>, socket: &Arc<Socket>) {
        self.leave_rooms(socket, Stage::Outside);
    }

    fn is_paused(&self, socket: &Socket) -> bool {
        socket.client.is_paused()
    }

    async fn resumed(&self, socket: &Socket) {
        socket.client.drained().await;
    }

    /// When the client's token expires.
    fn due(&self, client: &Client) -> Option<Instant> {
        client.credential.sign_in().map(|sign_in| Instant::now() + sign_in.left())
    }

    fn tick(self: &Arc<Self>, socket: &Socket) -> Option<Instant> {
        // If the client does not read `sessionEnded`, the ping timeout closes the session.
        self.end_if_expired(socket).map(|left| Instant::now() + left)
    }

    async fn leave(self: &Arc<Self>, socket: &Arc<Socket>) {
        emit(socket, "serverGoingAway", &json!({ "retryAfterMs": 1000 }));
        socket.client.finish_events().await;
    }

    fn evicted(self: &Arc<Self>, socket: &Socket) {
        self.leave_rooms(socket, Stage::Ended);
        socket.client.drop_events(&socket.outbox);
    }

    fn closed(self: &Arc<Self>, socket: &Socket) {
        let user = socket.client.identity().map(|identity| &identity.user.id);
        tracing::debug!(session = socket.id(), user, "socket closed");
        self.forget_sign_in(socket);
        self.leave_rooms(socket, Stage::Ended);
    }
}

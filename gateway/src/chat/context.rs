//! The context that all handlers of the chat share.

use std::sync::Arc;
use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::process::Process;
use confab_identity::revocations::Revocations;
use confab_identity::tokens::Tokens;
use confab_socketio::Registry;
use confab_socketio::budget::Budget;
use serde_json::json;
use tokio::sync::Semaphore;

use super::client::{Client, Socket, Stage};
use super::sign_ins::SignIns;
use crate::clients::Clients;
use crate::config::RealtimeConfig;
use crate::edge::cors::Origins;
use crate::limits::Limits;
use crate::marks::Marks;
use crate::rooms::follower::Follower;
use crate::rooms::history::History;
use crate::rooms::hub::Hub;
use crate::send::Sender;
use crate::typing::Typing;

/// Maximum number of concurrent recoveries.
pub const RESTORES: usize = 64;

/// The context of the handlers.
pub struct Chat {
    pub(super) config: RealtimeConfig,
    pub(super) clients: Clients,
    pub(super) sender: Sender,
    pub(super) tokens: Tokens,
    pub(crate) revocations: Revocations,
    pub(super) origins: Origins,
    pub(crate) hub: Arc<Hub<Socket>>,
    pub(crate) follower: Arc<Follower<Socket>>,
    pub(super) history: Arc<History>,
    /// The sessions of the server, for the identification of their clients.
    pub(crate) registry: Arc<Registry<Client>>,
    pub(super) sign_ins: SignIns,
    pub(super) limits: Arc<Limits>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) typing: Arc<Typing>,
    /// Bounds concurrent recoveries, because each holds the events that its client missed.
    pub(super) restores: Arc<Semaphore>,
}

/// The parts of the gateway that the chat uses.
pub struct Parts {
    pub config: RealtimeConfig,
    pub clients: Clients,
    pub sender: Sender,
    pub tokens: Tokens,
    pub revocations: Revocations,
    pub origins: Origins,
    pub budget: Arc<Budget>,
    pub limits: Arc<Limits>,
}

impl Chat {
    /// Creates the context and starts to follow the log.
    pub fn new(parts: Parts, bus: &Bus, process: &Process) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let follower = Follower::start(hub.clone(), parts.clients.clone(), bus, process);
        Arc::new(Self {
            history: History::new(parts.clients.clone()),
            marks: Marks::start(parts.clients.clone(), bus, parts.config.receipts_max_members),
            typing: Typing::start(bus),
            config: parts.config,
            clients: parts.clients,
            sender: parts.sender,
            tokens: parts.tokens,
            revocations: parts.revocations,
            origins: parts.origins,
            hub,
            follower,
            registry: Arc::new(Registry::new(parts.budget)),
            sign_ins: SignIns::default(),
            limits: parts.limits,
            restores: Arc::new(Semaphore::new(RESTORES)),
        })
    }

    /// Sends `sessionEnded` with this code and disconnects the socket. A stock client does not reconnect.
    pub fn end_session(&self, socket: &Socket, code: &'static str) {
        // First, so that a CONNECT in progress is not accepted any more.
        socket.disconnect("sessionEnded", &json!({ "code": code }));
        self.leave_rooms(socket, Stage::Ended);
        socket.client.drop_events(&socket.outbox);
    }

    /// Removes a client from all rooms and sets its stage.
    pub fn leave_rooms(&self, socket: &Socket, stage: Stage) {
        if let Some(identity) = socket.client.identity() {
            self.typing.left(identity.user_id, socket.id());
        }
        for room in socket.client.leave_rooms(stage) {
            self.hub.leave(room, socket.id());
        }
    }

    /// Ends the session if its token was revoked.
    pub fn end_if_revoked(&self, socket: &Socket) {
        let client = &socket.client;
        if let (Some(identity), Some(sign_in)) = (client.identity(), client.credential.sign_in())
            && let Some(cause) = self.revocations.cause(identity.user_id, sign_in)
        {
            self.end_session(socket, cause.code());
        }
    }

    /// Ends the session if its token has expired. Otherwise returns how long the token remains valid, at most 1 h.
    pub fn end_if_expired(&self, socket: &Socket) -> Option<Duration> {
        let left = socket.client.credential.sign_in()?.left();
        if !left.is_zero() {
            return Some(left);
        }
        if socket.outbox.closing().is_none() {
            self.end_session(socket, "expired");
        }
        None
    }

    /// Removes a socket from its sign-in, if it has one. Idempotent.
    pub fn forget_sign_in(&self, socket: &Socket) {
        self.sign_ins.remove(socket);
    }
}

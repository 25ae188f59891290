//! What the handlers of chat share.

use std::sync::Arc;

use confab_common::bus::Bus;
use confab_common::process::Process;
use confab_socketio::Registry;
use confab_socketio::budget::Budget;
use serde_json::json;
use tokio::sync::Semaphore;

use super::client::{Client, Socket, Stage};
use super::sign_ins::SignIns;
use crate::clients::Clients;
use crate::config::RealtimeConfig;
use crate::edge::cors::Origins;
use crate::revocations::Revocations;
use crate::rooms::follower::Follower;
use crate::rooms::history::History;
use crate::rooms::hub::Hub;
use crate::send::Sender;
use crate::tokens::Tokens;

/// How many clients are recovered at once.
pub const RESTORES: usize = 64;

/// What the handlers of chat share.
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
    /// The sessions of the server, whose clients are identified here.
    pub(crate) registry: Arc<Registry<Client>>,
    pub(super) sign_ins: SignIns,
    /// Bounds recoveries in progress: each holds the events that its client missed.
    pub(super) restores: Arc<Semaphore>,
}

/// The parts of the gateway that chat uses.
pub struct Parts {
    /// Limits and times.
    pub config: RealtimeConfig,
    /// The services.
    pub clients: Clients,
    /// Sends messages to the log.
    pub sender: Sender,
    /// Verifies tokens.
    pub tokens: Tokens,
    /// Knows which sessions are logged out.
    pub revocations: Revocations,
    /// The pages that may connect.
    pub origins: Origins,
    /// Counts what is held for clients.
    pub budget: Arc<Budget>,
}

impl Chat {
    /// Starts following the log.
    pub fn new(parts: Parts, bus: &Bus, process: &Process) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let follower = Follower::start(hub.clone(), parts.clients.clone(), bus, process);
        Arc::new(Self {
            history: History::new(parts.clients.clone()),
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
            restores: Arc::new(Semaphore::new(RESTORES)),
        })
    }

    /// Ends a session with an error; the client receives the code and does not reconnect on its own.
    pub fn end_session(&self, socket: &Socket, code: &'static str) {
        self.leave_rooms(socket, Stage::Ended);
        socket.client.drop_events(&socket.outbox);
        socket.disconnect("sessionEnded", &json!({ "code": code }));
    }

    /// Removes a client from every room, and records how far it has come.
    pub fn leave_rooms(&self, socket: &Socket, stage: Stage) {
        for room in socket.client.leave_rooms(stage) {
            self.hub.leave(room, socket.id());
        }
    }

    /// Forgets the sign-in of a socket, if it has one. Idempotent.
    pub fn forget_sign_in(&self, socket: &Socket) {
        if let Some(identity) = socket.client.identity() {
            self.sign_ins.remove(socket, identity);
        }
    }
}

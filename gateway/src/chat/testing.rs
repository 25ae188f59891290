//! A chat over a scripted log, and clients of it without a network.

mod log;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use clap::Parser;
use confab_common::bus::Bus;
use confab_common::grpc::Services;
use confab_common::process::Process;
use confab_common::{Code, Error};
use confab_identity::revocations::Revocations;
use confab_identity::testing::signed;
use confab_identity::tokens::{Identity, Tokens};
use confab_proto::auth::v1::{ListRevocationsRequest, ListRevocationsResponse, Revocation};
use confab_proto::channel;
use confab_proto::message::v1::Hint;
use confab_socketio::budget::Budget;
use confab_socketio::net::ClientAddress;
use confab_socketio::{Server, Transport};
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Socket;
use super::work::start_lanes;
use super::{Chat, Parts};
use crate::clients::Clients;
use crate::edge::cors::Origins;
use crate::limits::Limits;
use crate::send::Sender;
use crate::testing::services::{self, ROOM};
use crate::testing::{SESSION, claims, eventually, fake, identity};

pub use log::{EPOCH, Log, access, hide, partition};

pub const NEXT_EPOCH: &str = "01940000-0000-7000-8000-000000000001";
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: crate::config::GatewayConfig,
}

/// The address 192.0.2.`last`.
pub fn address(last: u8) -> ClientAddress {
    IpAddr::from([192, 0, 2, last]).into()
}

/// The CONNECT packet of user 7, with the fields of `auth` and a token.
pub fn connect(auth: Value) -> String {
    connect_as(7, auth)
}

/// The CONNECT packet of a user, with the fields of `auth` and a token.
pub fn connect_as(user: u128, mut auth: Value) -> String {
    auth["token"] = signed(1, &claims(json!({ "sub": Uuid::from_u128(user) }))).into();
    format!("40{auth}")
}

pub struct World {
    pub log: Arc<Log>,
    /// The number of revocations. All clients share one sign-in.
    pub revoked: Arc<AtomicU64>,
    pub bus: Bus,
    pub process: Process,
    pub chat: Arc<Chat>,
    pub server: Arc<Server<Chat>>,
}

/// A value of [`World::revoked`]: the auth service does not answer.
pub const AWAY: u64 = u64::MAX;

impl World {
    pub async fn new(bus: Bus) -> Self {
        Self::with(bus, &[], 300).await
    }

    /// A world with these settings, and events whose content has `content` bytes.
    pub async fn with(bus: Bus, settings: &[&str], content: usize) -> Self {
        let config = Settings::parse_from(["test"].iter().chain(settings)).gateway;
        let log = Arc::new(Log::new(content));
        let revoked = Arc::<AtomicU64>::default();
        let (answering, revocations) = (log.clone(), revoked.clone());
        let auth = fake(move |method, body: Bytes| match (method, revocations.load(Ordering::SeqCst)) {
            ("ListRevocations", AWAY) => Err(Error::new(Code::Unavailable, "not now")),
            ("ListRevocations", head) => {
                let after = ListRevocationsRequest::decode(body).unwrap().after;
                let session_id = SESSION.to_string();
                let revoked = Revocation { session_id, expires_at_ms: i64::MAX, ..Revocation::default() };
                let revocation = |number| Revocation { number, ..revoked.clone() };
                Ok(ListRevocationsResponse { revocations: (after + 1..=head).map(revocation).collect(), head }
                    .encode_to_vec())
            }
            _ => services::auth(method, body),
        });
        let message = fake(move |method, body| answering.answer(method, body));
        let other = || fake(services::room);
        let clients = Clients::new(Services { auth, room: other(), message, file: other() }, config.request_timeout);
        let process = Process::new();
        let revocations = Revocations::start(clients.auth.clone(), &bus, &process);
        let tokens = Tokens::start(clients.auth.clone(), revocations.clone(), &process);
        let (sender, origins) = (Sender::new(&clients), Origins::new(None, true));
        let budget = Arc::new(Budget::new(config.realtime.max_outbox_bytes, revocations.pauses().clone()));
        let socketio = config.realtime.of_server(config.request_timeout);
        let limits = Arc::new(Limits::open(&config.limits, &bus, None));
        let parts = Parts { config: config.realtime, clients, sender, tokens, revocations, origins, budget, limits };
        let chat = Chat::new(parts, &bus, &process);
        chat.start_tasks();
        let server = Server::new(chat.clone(), socketio, chat.registry.clone());
        process.readiness.started();
        let world = Self { log, revoked, bus, process, chat, server };
        eventually(|| world.process.readiness.missing().is_none()).await;
        world
    }

    /// A client that has not connected.
    pub fn client(&self) -> Client {
        self.client_at(1)
    }

    /// A client at this address.
    pub fn client_at(&self, last: u8) -> Client {
        let socket = self.server.open(Transport::POLLING, address(last), &HeaderMap::new()).unwrap();
        Client { server: self.server.clone(), socket, received: Vec::new(), seqs: Vec::new() }
    }

    /// An identified socket of this user, with an empty outbox.
    pub fn known(&self, user: u128) -> Arc<Socket> {
        let (socket, user_id) = (self.client().socket, Uuid::from_u128(user));
        let identity = Identity { user_id, session_id: user_id, ..identity() };
        self.chat.sign_ins.add(&socket, &identity, <_>::default(), || false).unwrap();
        self.chat.registry.identify(&socket, user_id);
        socket.outbox.take_some(9, usize::MAX);
        socket
    }

    /// A client of user 7 in the room.
    pub async fn member(&self) -> Client {
        self.joined(7, json!({})).await
    }

    /// A client of this user in the room.
    pub async fn joined(&self, user: u128, auth: Value) -> Client {
        let mut client = self.connected(user, auth).await;
        client.emit(&format!("420[\"joinRoom\",\"{ROOM}\"]"));
        client.receives("430[{\"ok\":true").await;
        client.received.clear();
        client
    }

    /// A connected client of this user.
    pub async fn connected(&self, user: u128, auth: Value) -> Client {
        let mut client = self.client();
        client.emit(&connect_as(user, auth));
        client.receives("40{").await;
        client.received.clear();
        client
    }

    /// Appends events without a hint; returns the last one's number.
    pub fn append(&self, count: u64) -> u64 {
        self.log.head.fetch_add(count, Ordering::SeqCst) + count
    }

    /// The hint of events that a replica publishes after a commit.
    pub fn hint(&self, first: u64, count: u64) -> Hint {
        let events = (first..first + count).map(|seq| self.log.event(seq)).collect();
        Hint { epoch: EPOCH.into(), partition: partition(), first_position: first, events }
    }

    pub fn publish(&self, payload: impl Into<Bytes>) {
        self.bus.publish(channel::log(partition()), payload);
    }

    /// Appends events and publishes their hint; returns the last one's number.
    pub fn append_and_publish(&self, count: u64) -> u64 {
        let last = self.append(count);
        self.publish(self.hint(last + 1 - count, count).encode_to_vec());
        last
    }

    /// Waits until the heads have been polled `times` more times.
    pub async fn heads_polled(&self, times: u64) {
        let asked = self.log.heads.load(Ordering::SeqCst);
        eventually(|| self.log.heads.load(Ordering::SeqCst) >= asked + times).await;
    }
}

pub struct Client {
    server: Arc<Server<Chat>>,
    pub socket: Arc<Socket>,
    pub received: Vec<String>,
    seqs: Vec<u64>,
}

impl Client {
    pub fn emit(&self, text: &str) {
        self.server.receive(&self.socket, text).unwrap();
        start_lanes(&self.server.app, &self.socket);
    }

    pub fn read_frames(&mut self) {
        let frames = self.socket.outbox.take_some(16, usize::MAX);
        self.received.extend(frames.iter().map(|frame| String::from_utf8(frame.packet().to_vec()).unwrap()));
    }

    /// Waits for a frame that starts with `begin`.
    pub async fn receives(&mut self, begin: &str) {
        eventually(|| {
            self.read_frames();
            self.received.iter().any(|received| received.starts_with(begin))
        })
        .await;
    }

    /// Reads until the event with that number arrives; returns the numbers of all events that arrived.
    pub async fn receives_up_to(&mut self, last: u64) -> Vec<u64> {
        let reading = async {
            loop {
                self.read_frames();
                let received = self.seqs();
                if received.last() == Some(&last) {
                    return received;
                }
                assert_eq!(self.socket.outbox.closing(), None, "after {:?}", received.last());
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::time::timeout(RECEIVE_LIMIT, reading).await.expect("all events to arrive in time")
    }

    /// The numbers of the events that have arrived.
    pub fn seqs(&mut self) -> Vec<u64> {
        let number =
            |packet: &String| serde_json::from_str::<Value>(packet.strip_prefix("42")?).ok()?[1]["seq"].as_u64();
        self.seqs.extend(self.received.drain(..).filter_map(|packet| number(&packet)));
        self.seqs.clone()
    }
}

//! A chat over a scripted log, and clients of it without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use confab_proto::message::v1::{AccessChange, Event, GetHeadsRequest, GetHeadsResponse, Head, Hint, Kind, RoomMember};
use confab_proto::message::v1::{ListEventsRequest, ListEventsResponse, ReadLogRequest, ReadLogResponse};
use confab_proto::room::v1::{Role, Visibility};
use confab_proto::{channel, partition};
use confab_socketio::budget::Budget;
use confab_socketio::net::ClientAddress;
use confab_socketio::{Server, Transport};
use parking_lot::Mutex;
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

pub const EPOCH: &str = "01930000-0000-7000-8000-000000000001";
pub const NEXT_EPOCH: &str = "01940000-0000-7000-8000-000000000001";
const PARTITIONS: u32 = 64;
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: crate::config::GatewayConfig,
}

/// The log of one room, whose events have equal numbers in the room and in the partition.
pub struct Log {
    pub epoch: Mutex<&'static str>,
    pub head: AtomicU64,
    content: String,
    /// The changes of the room's visibility and members, with the names of their events, by `seq`.
    changes: Mutex<BTreeMap<u64, (&'static str, AccessChange)>>,
    /// Whether all calls fail with `unavailable`.
    pub away: AtomicBool,
    /// Whether the partition can be read.
    pub readable: AtomicBool,
    /// The number of polls of heads, of reads of the partition, and of reads of the room's history.
    pub heads: AtomicU64,
    pub reads: AtomicU64,
    pub lists: AtomicU64,
    /// Runs once, during the next read of the room's history.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Log {
    pub fn event(&self, seq: u64) -> Event {
        let event = Event { partition: partition(), position: seq, room_id: ROOM.into(), seq, ..Event::default() };
        match self.changes.lock().get(&seq) {
            None => Event { content: self.content.clone(), ..event },
            Some((name, access)) => {
                let (kind, name) = (Kind::System.into(), (*name).into());
                Event { kind, event: name, data: "{}".into(), access: Some(access.clone()), ..event }
            }
        }
    }

    /// Appends a change of the room's visibility or members, without a hint; returns its number.
    pub fn change(&self, name: &'static str, access: AccessChange) -> u64 {
        let seq = self.head.load(Ordering::SeqCst) + 1;
        self.changes.lock().insert(seq, (name, access));
        self.head.store(seq, Ordering::SeqCst);
        seq
    }

    /// The members at this `seq`, if the room is private then.
    fn members(&self, seq: u64) -> Option<BTreeSet<String>> {
        let (mut private, mut members) = (false, BTreeSet::new());
        for (_, (_, change)) in self.changes.lock().range(..=seq) {
            private = change.visibility() == Visibility::Private;
            members.extend(change.members.iter().map(|member| member.user_id.clone()));
            members.retain(|user| !change.removed.contains(user));
        }
        private.then_some(members)
    }

    /// The events after `after` up to `head`, within `max_bytes`.
    fn events(&self, after: u64, head: u64, max_bytes: u32) -> Vec<Event> {
        let mut bytes = 0;
        let within = |event: &Event| {
            bytes += event.encoded_len();
            bytes <= max_bytes as usize
        };
        (after + 1..=head).map(|seq| self.event(seq)).take_while(within).collect()
    }

    fn answer(&self, method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
        let (epoch, head) = (self.epoch.lock().to_string(), self.head.load(Ordering::SeqCst));
        match method {
            _ if self.away.load(Ordering::SeqCst) => Err(Error::new(Code::Unavailable, "not now")),
            "GetHeads" => {
                self.heads.fetch_add(1, Ordering::SeqCst);
                let partitions = GetHeadsRequest::decode(body).unwrap().partitions;
                let position = |wanted| if wanted == partition() { head } else { 0 };
                let heads =
                    partitions.into_iter().map(|partition| Head { partition, position: position(partition) }).collect();
                Ok(GetHeadsResponse { epoch, partition_count: PARTITIONS, heads }.encode_to_vec())
            }
            "ReadLog" => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                if !self.readable.load(Ordering::SeqCst) {
                    return Err(Error::new(Code::Unavailable, "not now"));
                }
                let request = ReadLogRequest::decode(body).unwrap();
                Ok(ReadLogResponse { epoch, head, events: self.events(request.after, head, request.max_bytes) }
                    .encode_to_vec())
            }
            "ListEvents" => {
                self.lists.fetch_add(1, Ordering::SeqCst);
                if let Some(meanwhile) = self.meanwhile.lock().take() {
                    meanwhile();
                }
                let request = ListEventsRequest::decode(body).unwrap();
                let mut events =
                    request.after.map_or_else(Vec::new, |after| self.events(after, head, request.max_bytes));
                events.truncate(request.limit as usize);
                let (mut readers, members) = (request.readers, self.members(head));
                readers.retain(|reader| members.as_ref().is_some_and(|members| members.contains(reader)));
                let private = members.is_some();
                if private && readers.is_empty() {
                    return Err(Error::new(Code::NotFound, "the room is not open to the readers"));
                }
                Ok(ListEventsResponse {
                    epoch,
                    last_seq: head,
                    events,
                    private,
                    readers,
                    ..ListEventsResponse::default()
                }
                .encode_to_vec())
            }
            _ => Err(Error::internal("unexpected call")),
        }
    }
}

/// The partition of the room.
pub fn partition() -> u32 {
    partition::of_room(ROOM.parse().unwrap(), PARTITIONS)
}

/// A change of the members of a private room.
pub fn access(members: &[u128], removed: &[u128]) -> AccessChange {
    let id = |user: &u128| Uuid::from_u128(*user).to_string();
    let member = |user: &u128| RoomMember { user_id: id(user), role: Role::Member.into() };
    AccessChange {
        members: members.iter().map(member).collect(),
        removed: removed.iter().map(id).collect(),
        visibility: Visibility::Private.into(),
        changes_visibility: false,
    }
}

/// A change that makes the room private, with these members.
pub fn hide(members: &[u128]) -> AccessChange {
    AccessChange { changes_visibility: true, ..access(members, &[]) }
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
        let log = Arc::new(Log {
            epoch: Mutex::new(EPOCH),
            head: AtomicU64::new(7),
            content: "x".repeat(content),
            changes: Mutex::default(),
            away: AtomicBool::new(false),
            readable: AtomicBool::new(true),
            heads: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            meanwhile: Mutex::default(),
        });
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

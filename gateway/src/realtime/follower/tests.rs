//! Following a log that answers as told: holes of every size, hints of every kind, a gateway that stood still.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use clap::Parser;
use confab_common::{Code, Error};
use confab_proto::auth::v1::{ListRevocationsRequest, ListRevocationsResponse, Revocation};
use confab_proto::message::v1::{Event, Head, Hint, ListEventsResponse, ReadLogRequest, ReadLogResponse};
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::edge::cors::Origins;
use crate::realtime::outbox::Close;
use crate::realtime::session::Transport;
use crate::realtime::{Parts, Realtime};
use crate::revocations::Revocations;
use crate::send::Sender;
use crate::testing::services::{self, ROOM};
use crate::testing::{bus, claims, eventually, fake};
use crate::tokens::Tokens;
use crate::tokens::tests::signed;

const EPOCH: &str = "01930000-0000-7000-8000-000000000001";
const NEXT_EPOCH: &str = "01940000-0000-7000-8000-000000000001";
const PARTITIONS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: crate::config::GatewayConfig,
}

/// The log of one room, whose events have the same number there and in their partition.
struct Log {
    epoch: Mutex<&'static str>,
    head: AtomicU64,
    content: String,
    readable: AtomicBool,
    heads: AtomicU64,
}

impl Log {
    fn event(&self, seq: u64) -> Event {
        let (room_id, content) = (ROOM.into(), self.content.clone());
        Event { partition: partition(), position: seq, room_id, seq, content, ..Event::default() }
    }

    fn answer(&self, method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
        let (epoch, head) = (self.epoch.lock().unwrap().to_string(), self.head.load(Ordering::SeqCst));
        match method {
            "GetHeads" => {
                self.heads.fetch_add(1, Ordering::SeqCst);
                let partitions = GetHeadsRequest::decode(body).unwrap().partitions;
                let position = |wanted| if wanted == partition() { head } else { 0 };
                let heads = partitions.into_iter().map(|partition| Head { partition, position: position(partition) }).collect();
                Ok(GetHeadsResponse { epoch, partition_count: PARTITIONS, heads }.encode_to_vec())
            }
            "ReadLog" if !self.readable.load(Ordering::SeqCst) => Err(Error::new(Code::Unavailable, "not now")),
            "ReadLog" => {
                let request = ReadLogRequest::decode(body).unwrap();
                let mut bytes = 0;
                let events = (request.after + 1..=head).map(|seq| self.event(seq)).take_while(|event| {
                    bytes += event.encoded_len();
                    bytes <= request.max_bytes as usize
                });
                Ok(ReadLogResponse { epoch, head, events: events.collect() }.encode_to_vec())
            }
            "ListEvents" => Ok(ListEventsResponse { epoch, last_seq: head, ..ListEventsResponse::default() }.encode_to_vec()),
            _ => Err(Error::internal("not asked for here")),
        }
    }
}

fn partition() -> u32 {
    partition::of_room(ROOM.parse().unwrap(), PARTITIONS)
}

struct World {
    log: Arc<Log>,
    /// How many have logged out: everybody here has the same sign-in.
    revoked: Arc<AtomicU64>,
    bus: Bus,
    process: Process,
    edge: Arc<Realtime>,
}

/// For [`World::revoked`]: auth is away.
const AWAY: u64 = u64::MAX;

impl World {
    async fn new(bus: Bus) -> Self {
        let config = Settings::parse_from(["test"]).gateway;
        let epoch = Mutex::new(EPOCH);
        let (head, readable, heads) = (AtomicU64::new(7), AtomicBool::new(true), AtomicU64::new(0));
        let log = Arc::new(Log { epoch, head, content: "x".repeat(300), readable, heads });
        let revoked = Arc::<AtomicU64>::default();
        let (answering, revocations) = (log.clone(), revoked.clone());
        let auth = fake(move |method, body: Bytes| match (method, revocations.load(Ordering::SeqCst)) {
            ("ListRevocations", AWAY) => Err(Error::new(Code::Unavailable, "not now")),
            ("ListRevocations", head) => {
                let after = ListRevocationsRequest::decode(body).unwrap().after;
                let revocation = |number| Revocation { number, session_id: "session".into(), expires_at_ms: i64::MAX };
                Ok(ListRevocationsResponse { revocations: (after + 1..=head).map(revocation).collect(), head }.encode_to_vec())
            }
            _ => services::auth(method, body),
        });
        let message = fake(move |method, body| answering.answer(method, body));
        let other = || fake(services::room);
        let clients = Clients::new(auth, other(), message, other(), config.request_timeout);
        let process = Process::new();
        let revocations = Revocations::start(clients.auth.clone(), &bus, &process);
        let tokens = Tokens::start(clients.auth.clone(), revocations.clone(), &process);
        let (sender, origins) = (Sender::new(&clients), Origins::new(None, true));
        let parts = Parts { config: config.realtime, clients, sender, tokens, revocations, origins, forward: None };
        let edge = Realtime::start(parts, &bus, &process);
        process.readiness.started();
        let world = Self { log, revoked, bus, process, edge };
        eventually(|| world.process.readiness.missing().is_none()).await;
        world
    }

    /// A client in the room.
    async fn member(&self) -> Client {
        let session = Session::open(&self.edge, Transport::Polling { reading: false }, None);
        let mut client = Client { session, heard: Vec::new(), seqs: Vec::new() };
        client.emit(&format!("40{}", json!({ "token": signed(1, &claims(json!({}))) })));
        client.hears("40{").await;
        client.emit(&format!("420[\"joinRoom\",\"{ROOM}\"]"));
        client.hears("430[{\"ok\":true").await;
        client.heard.clear();
        client
    }

    /// Appends events; the last one's number.
    fn append(&self, count: u64) -> u64 {
        self.log.head.fetch_add(count, Ordering::SeqCst) + count
    }

    /// Tells of events, as a replica does after a commit.
    fn hint(&self, first: u64, count: u64) -> Hint {
        let events = (first..first + count).map(|seq| self.log.event(seq)).collect();
        Hint { epoch: EPOCH.into(), partition: partition(), first_position: first, events }
    }

    fn publish(&self, payload: impl Into<Bytes>) {
        self.bus.publish(channel::log(partition()), payload);
    }
}

struct Client {
    session: Arc<Session>,
    heard: Vec<String>,
    seqs: Vec<u64>,
}

impl Client {
    fn emit(&self, text: &str) {
        self.session.receive(text).unwrap();
        self.session.socket.start_lanes(&self.session);
    }

    fn listen(&mut self) {
        let frames = self.session.outbox.take_some(16, usize::MAX);
        self.heard.extend(frames.iter().map(|frame| String::from_utf8(frame.packet().to_vec()).unwrap()));
    }

    /// Waits for what begins so.
    async fn hears(&mut self, begin: &str) {
        eventually(|| {
            self.listen();
            self.heard.iter().any(|heard| heard.starts_with(begin))
        })
        .await;
    }

    /// Reads on until it has heard the event of that number; the numbers of all that it heard.
    async fn hears_up_to(&mut self, last: u64) -> Vec<u64> {
        let reading = async {
            loop {
                self.listen();
                let heard = self.seqs();
                if heard.last() == Some(&last) {
                    return heard;
                }
                assert_eq!(self.session.outbox.closing(), None, "after {:?}", heard.last());
                sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("all of it")
    }

    /// The numbers of the events that it has heard.
    fn seqs(&mut self) -> Vec<u64> {
        let number = |packet: &String| serde_json::from_str::<Value>(packet.strip_prefix("42")?).ok()?[1]["seq"].as_u64();
        self.seqs.extend(self.heard.drain(..).filter_map(|packet| number(&packet)));
        self.seqs.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_hole_arrives_whole_at_who_reads() {
    let world = World::new(bus()).await;
    let (mut reader, stalled) = (world.member().await, world.member().await);
    // More than any outbox holds, and no hint of it.
    let last = world.append(9000);
    assert_eq!(reader.hears_up_to(last).await, (8..=last).collect::<Vec<_>>());
    assert_eq!(reader.session.outbox.closing(), None);
    assert_eq!(stalled.session.outbox.closing(), Some(Close::Now), "who reads nothing is not waited for");
}

#[tokio::test]
async fn a_hole_beyond_replay_sends_its_clients_back() {
    let world = World::new(bus()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(world.member().await);
    }
    world.append(10_001);
    eventually(|| clients.iter().all(|client| client.session.outbox.closing() == Some(Close::Now))).await;
    assert!(clients.iter().all(|client| client.session.outbox.is_empty()), "nothing of it was sent");
    // Those who come back hear what is new.
    let mut back = world.member().await;
    let last = world.append(1);
    world.publish(world.hint(last, 1).encode_to_vec());
    assert_eq!(back.hears_up_to(last).await, [last]);
}

async fn the_next_good_hint_is_delivered(world: World) {
    let mut client = world.member().await;
    let good = world.hint(8, 3);
    let encoded = good.encode_to_vec();
    let forged = [
        Hint { partition: partition() ^ 1, ..good.clone() },
        Hint { events: vec![], ..good.clone() },
        Hint { first_position: 0, ..good.clone() },
        Hint { first_position: u64::MAX, ..good.clone() },
        Hint { first_position: 9, ..good.clone() },
        Hint { events: vec![Event { seq: 0, ..world.log.event(8) }], ..good.clone() },
    ];
    for garbage in [&b"garbage"[..], &[0xff; 100], &[], &encoded[..encoded.len() - 1]] {
        world.publish(Bytes::copy_from_slice(garbage));
    }
    forged.iter().for_each(|hint| world.publish(hint.encode_to_vec()));
    world.publish(vec![0x5a; confab_common::bus::MAX_PAYLOAD - 100]);
    // Well formed, but of a log that there is not: the database is asked, and nobody is sent away.
    world.publish(Hint { epoch: NEXT_EPOCH.into(), ..good.clone() }.encode_to_vec());
    let far = 1_000_000;
    world.publish(world.hint(far, 1).encode_to_vec());
    world.append(3);
    world.publish(encoded);
    assert_eq!(client.hears_up_to(10).await, [8, 9, 10]);
    let asked = world.log.heads.load(Ordering::SeqCst);
    eventually(|| world.log.heads.load(Ordering::SeqCst) > asked + 1).await;
    assert_eq!(client.session.outbox.closing(), None);
}

#[tokio::test]
async fn whatever_is_on_the_bus() {
    the_next_good_hint_is_delivered(World::new(bus()).await).await;
}

#[tokio::test]
async fn whatever_is_on_redis() {
    let redis = Bus::open(&confab_common::testing::redis(), Some(&"key".into())).unwrap();
    the_next_good_hint_is_delivered(World::new(redis).await).await;
}

#[tokio::test]
async fn whatever_is_on_an_unsigned_redis() {
    let redis = Bus::open(&confab_common::testing::redis(), None).unwrap();
    the_next_good_hint_is_delivered(World::new(redis).await).await;
}

#[tokio::test]
async fn a_new_epoch_is_heard_of_by_its_first_hint() {
    let world = World::new(bus()).await;
    let client = world.member().await;
    *world.log.epoch.lock().unwrap() = NEXT_EPOCH;
    world.publish(Hint { epoch: NEXT_EPOCH.into(), ..world.hint(8, 1) }.encode_to_vec());
    eventually(|| client.session.outbox.closing() == Some(Close::Now)).await;
    let mut back = world.member().await;
    *world.log.epoch.lock().unwrap() = EPOCH;
    // A replica that has not noticed.
    world.append(1);
    let asked = world.log.heads.load(Ordering::SeqCst);
    eventually(|| world.log.heads.load(Ordering::SeqCst) > asked + 2).await;
    back.listen();
    assert_eq!((back.seqs(), back.session.outbox.closing()), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_the_log_is_not_followed_and_only_then() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    let ready = || world.process.readiness.missing().is_none();
    world.log.readable.store(false, Ordering::SeqCst);
    let last = world.append(1);
    let begin = Instant::now();
    eventually(|| !ready()).await;
    assert!(begin.elapsed() >= Duration::from_secs(5) && begin.elapsed() < Duration::from_secs(7), "{:?}", begin.elapsed());
    world.log.readable.store(true, Ordering::SeqCst);
    eventually(ready).await;
    assert_eq!(client.hears_up_to(last).await, [last]);
}

#[tokio::test]
async fn who_stood_still_writes_nothing_before_it_knows_what_it_missed() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    world.edge.outboxes.stand_still();
    world.revoked.store(AWAY, Ordering::SeqCst);
    let last = world.append(1);
    world.publish(world.hint(last, 1).encode_to_vec());
    eventually(|| !client.session.outbox.is_empty()).await;
    let asked = world.log.heads.load(Ordering::SeqCst);
    eventually(|| world.log.heads.load(Ordering::SeqCst) > asked + 2).await;
    client.listen();
    assert_eq!(client.heard, [""; 0]);
    // It had logged out meanwhile.
    world.revoked.store(1, Ordering::SeqCst);
    client.hears("41").await;
    assert_eq!(client.heard, [r#"42["sessionEnded",{"code":"logged_out"}]"#, "41"]);
    assert!(!world.edge.outboxes.is_paused());
}

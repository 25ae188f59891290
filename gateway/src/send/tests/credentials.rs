//! The lanes with a message service that learns credentials.

use std::collections::{HashMap, HashSet};

use axum::http::Request;
use bytes::Bytes;
use confab_common::grpc::{Call, Services, in_process};
use confab_identity::credential;
use confab_proto::message::v1::{AppendResponse, Refusal};
use futures::future::join_all;
use parking_lot::Mutex;
use prost::Message;
use tonic::body::Body;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::testing::fake;

/// A message service that forgets all credentials after every third call, as if another replica answered.
#[derive(Default)]
struct Log {
    known: HashSet<Vec<u8>>,
    calls: usize,
    /// Calls with credentials.
    taught: usize,
    /// The contents of the events of each room, in their order.
    rooms: HashMap<String, Vec<String>>,
    /// How often the service rejects the event "first" with `unavailable`.
    rejections: usize,
    /// Whether the service never learns a credential.
    is_deaf: bool,
    /// How often the service rejects a credential that it has received.
    refusals: usize,
    /// The keys of the calls, which choose the replica.
    keys: Vec<Option<u64>>,
    /// Credentials in calls that are none.
    empty: usize,
}

fn refusal(code: &str) -> Outcome {
    let refusal = Refusal { code: code.into(), ..Refusal::default() };
    Outcome { result: Some(outcome::Result::Refusal(refusal)), duplicate: false }
}

impl Log {
    fn append(&mut self, request: AppendRequest) -> AppendResponse {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            self.known.clear();
        }
        self.taught += usize::from(!request.credentials.is_empty());
        self.empty += request.credentials.iter().filter(|given| given.token.is_empty()).count();
        if !self.is_deaf {
            let learned = request.credentials.iter().map(|given| Credential::of_token(&given.token).digest().unwrap());
            self.known.extend(learned.map(Vec::from));
        }
        let mut waiting = HashSet::new();
        let outcomes = request.events.into_iter().map(|event| {
            let is_known = event.credential.is_empty() || self.known.contains(&event.credential);
            if waiting.contains(&event.room_id) || !is_known {
                waiting.insert(event.room_id);
                return refusal(credential::UNKNOWN);
            }
            if event.content == "first" && self.rejections > 0 {
                self.rejections -= 1;
                return refusal(Code::Unavailable.as_str());
            }
            if self.refusals > 0 {
                self.refusals -= 1;
                return refusal(Code::Unauthorized.as_str());
            }
            self.rooms.entry(event.room_id.clone()).or_default().push(event.content.clone());
            let event = Event { id: event.id, content: event.content, ..Event::default() };
            Outcome { result: Some(outcome::Result::Event(event)), duplicate: false }
        });
        AppendResponse { epoch: "e".into(), outcomes: outcomes.collect() }
    }
}

fn sender() -> (Arc<Mutex<Log>>, Sender) {
    let log = Arc::<Mutex<Log>>::default();
    let answering = log.clone();
    let answers =
        fake(move |_, body: Bytes| Ok(answering.lock().append(AppendRequest::decode(body).unwrap()).encode_to_vec()));
    let calls = log.clone();
    let message = in_process(service_fn(move |request: Request<Body>| {
        calls.lock().keys.push(request.extensions().get::<Call>().and_then(|call| call.key));
        answers.clone().oneshot(request)
    }));
    let clients = Clients::new(Services { message, ..Services::none() }, Duration::from_secs(20));
    (log, Sender::new(&clients))
}

fn event(room: Uuid, content: String) -> NewEvent {
    NewEvent { id: Uuid::now_v7().to_string(), room_id: room.to_string(), content, ..NewEvent::default() }
}

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_credential_is_sent_once() {
    let (log, sender) = sender();
    let (room, token) = (Uuid::from_u128(1), Credential::of_token("a"));
    let sent = sender.send(room, event(room, "1".into()), token.clone(), WITHIN).await.unwrap();
    let counts = || {
        let log = log.lock();
        (log.calls, log.taught)
    };
    assert_eq!((&*sent.message.content, counts()), ("1", (2, 1)));
    log.lock().calls = 0;
    sender.send(room, event(room, "2".into()), token, WITHIN).await.unwrap();
    assert_eq!(counts(), (1, 1));
}

#[tokio::test]
async fn resent_events_keep_the_order_of_their_room() {
    let (log, sender) = sender();
    let tokens = ["a", "b", "c", "d"].map(Credential::of_token);
    let rooms = (0..20).map(Uuid::from_u128).collect::<Vec<_>>();
    // Each room has messages with all tokens, in turn.
    let sending = (0..2000).map(|number: usize| {
        let (room, token) = (rooms[number % rooms.len()], tokens[number / 7 % tokens.len()].clone());
        sender.begin(room, event(room, number.to_string()), token, WITHIN).unwrap().outcome()
    });
    let sent = join_all(sending).await;
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.unwrap().message.content, number.to_string());
    }
    let log = log.lock();
    assert!(log.taught > 0);
    for (index, room) in rooms.iter().enumerate() {
        let expected = (index..2000).step_by(rooms.len()).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(log.rooms[&room.to_string()], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_learn_is_unavailable() {
    let (log, sender) = sender();
    log.lock().is_deaf = true;
    let room = Uuid::from_u128(1);
    let refused = sender.send(room, event(room, "1".into()), Credential::of_token("a"), TIMEOUT).await.unwrap_err();
    let log = log.lock();
    assert_eq!(refused.code, Code::Unavailable);
    assert!(log.taught > 2 && log.calls == 2 * log.taught, "{} calls, {} of them with it", log.calls, log.taught);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_credential_does_not_let_a_send_overtake_a_rejected_one() {
    let (log, sender) = sender();
    let (room, former, next) = (Uuid::from_u128(1), Credential::of_token("a"), Credential::of_token("b"));
    log.lock().known.extend(former.digest().map(Vec::from));
    log.lock().rejections = 4;
    // Both go into one append, because the lane has not run yet.
    let first = sender.begin(room, event(room, "first".into()), former, WITHIN).unwrap();
    let second = sender.begin(room, event(room, "second".into()), next, WITHIN).unwrap();
    first.outcome().await.unwrap();
    second.outcome().await.unwrap();
    let log = log.lock();
    assert_eq!((log.rejections, &*log.rooms[&room.to_string()]), (0, &["first".to_owned(), "second".to_owned()][..]));
    assert!(log.taught > 0);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_a_replica_rejects_is_tried_again_at_another_one() {
    let (log, sender) = sender();
    log.lock().refusals = 3;
    let room = Uuid::from_u128(1);
    // Both go into one append, because the lane has not run yet.
    let sending = ["1", "2"].map(|content| {
        sender.begin(room, event(room, content.into()), Credential::of_token("a"), TIMEOUT).unwrap().outcome()
    });
    for (sent, content) in join_all(sending).await.into_iter().zip(["1", "2"]) {
        assert_eq!(sent.unwrap().message.content, content);
    }
    let log = log.lock();
    assert_eq!(log.rooms[&room.to_string()], ["1", "2"]);
    let keys = log.keys.iter().map(|key| key.unwrap()).collect::<HashSet<_>>();
    assert!(keys.len() > 2, "each attempt may choose another replica: {keys:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_was_done_when_all_replicas_reject_a_credential() {
    let (log, sender) = sender();
    log.lock().refusals = usize::MAX;
    let (room, begun) = (Uuid::from_u128(1), Instant::now());
    let refused = sender.send(room, event(room, "1".into()), Credential::of_token("a"), TIMEOUT).await.unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Unavailable, true));
    assert!((Duration::from_millis(1500)..TIMEOUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_event_without_a_credential_adds_none_to_a_repeat() {
    let (log, sender) = sender();
    let room = Uuid::from_u128(1);
    // Both go into one append, and the second one waits for the first.
    let first = sender.begin(room, event(room, "1".into()), Credential::of_token("a"), WITHIN).unwrap();
    let second = sender.begin(room, event(room, "2".into()), Credential::default(), WITHIN).unwrap();
    first.outcome().await.unwrap();
    second.outcome().await.unwrap();
    let log = log.lock();
    assert_eq!((log.taught, log.empty), (1, 0));
    assert_eq!(log.rooms[&room.to_string()], ["1", "2"]);
}

//! Marks against a scripted message service.

use std::collections::HashSet;

use confab_common::grpc::Services;
use confab_proto::message::v1::{MarkReadResponse, Refusal};

use super::*;
use crate::testing::{bus, eventually, fake};

const ROOM: Uuid = Uuid::from_u128(1);
const ADA: Uuid = Uuid::from_u128(7);

/// The calls of a message service, and how it answers them.
#[derive(Default)]
struct Service {
    calls: Vec<Vec<Mark>>,
    /// The digests of the credentials that it has received.
    known: HashSet<Vec<u8>>,
    /// Calls that it rejects first.
    unavailable: usize,
}

impl Service {
    fn answer(&mut self, request: MarkReadRequest) -> Result<Vec<u8>> {
        if self.unavailable > 0 {
            self.unavailable -= 1;
            return Err(Error::unavailable("the log"));
        }
        self.known.extend(request.credentials.iter().map(|credential| credential::digest_of(credential).to_vec()));
        self.calls.push(request.marks.clone());
        let refusal = |code: &str| mark_outcome::Result::Refusal(Refusal { code: code.into(), detail: String::new() });
        let outcome = |mark: Mark| match mark.seq {
            _ if !mark.credential.is_empty() && !self.known.contains(&mark.credential) => refusal(credential::UNKNOWN),
            99 => refusal("forbidden"),
            seq => mark_outcome::Result::Marked(Marked {
                seq,
                at_ms: Some(5),
                unread: 3,
                moved: true,
                has_receipts: true,
                passed: 1,
            }),
        };
        let outcomes = request.marks.into_iter().map(|mark| MarkOutcome { result: Some(outcome(mark)) }).collect();
        Ok(MarkReadResponse { outcomes }.encode_to_vec())
    }
}

fn started(bus: &Bus) -> (Arc<Mutex<Service>>, Arc<Marks>) {
    let service = Arc::<Mutex<Service>>::default();
    let answering = service.clone();
    let message = fake(move |_, body: bytes::Bytes| answering.lock().answer(MarkReadRequest::decode(body).unwrap()));
    let clients = Clients::new(Services { message, ..Services::none() }, Duration::from_secs(20));
    (service, Marks::start(clients, bus, 100))
}

fn token(text: &str) -> Credential {
    Credential::of_token(text)
}

#[tokio::test]
async fn marks_within_a_second_become_one_call() {
    let (service, marks) = started(&bus());
    marks.begin(ROOM, ADA, 1, token("a")).unwrap().outcome().await.unwrap();
    let seqs = [2, 5, 4];
    let waiting: Vec<_> = seqs.iter().map(|seq| marks.begin(ROOM, ADA, *seq, token("a")).unwrap()).collect();
    let other = marks.begin(ROOM, Uuid::from_u128(8), 3, token("b")).unwrap();
    for marking in waiting {
        let marked = marking.outcome().await.unwrap();
        assert_eq!((marked.seq, marked.unread), (5, 3));
    }
    assert_eq!(other.outcome().await.unwrap().seq, 3);
    let service = service.lock();
    let calls: Vec<_> = service.calls.iter().map(Vec::len).collect();
    // The service learns each credential in a second call.
    assert_eq!(calls, [1, 1, 2, 1]);
    assert!(service.calls[2].iter().all(|mark| mark.age_ms < 20_000 && !mark.back));
}

#[tokio::test]
async fn a_mark_is_repeated_while_the_service_is_away() {
    let (service, marks) = started(&bus());
    service.lock().unavailable = 2;
    assert_eq!(marks.begin(ROOM, ADA, 1, Credential::default()).unwrap().outcome().await.unwrap().seq, 1);
    let refused = marks.begin(ROOM, ADA, 99, Credential::default()).unwrap().outcome().await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn an_author_reads_and_a_server_key_does_not() {
    let (service, marks) = started(&bus());
    marks.authored(ROOM, ADA, 4, &Credential::of_key("cfk_1_2", Some(ADA)));
    marks.authored(ROOM, ADA, 3, &Credential::default());
    eventually(|| !service.lock().calls.is_empty()).await;
    assert_eq!(service.lock().calls[0].iter().map(|mark| mark.seq).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn the_own_message_of_an_author_is_no_news() {
    let (service, marks) = started(&bus());
    let mut announced = marks.subscribe();
    // The service answers that one message has been passed, the own one.
    marks.authored(ROOM, ADA, 3, &Credential::default());
    eventually(|| !service.lock().calls.is_empty()).await;
    marks.begin(ROOM, ADA, 4, Credential::default()).unwrap().outcome().await.unwrap();
    assert_eq!(announced.recv().await.unwrap()[0].seq, 4);
}

#[tokio::test]
async fn all_gateways_learn_of_a_moved_marker() {
    let bus = bus();
    let ((_, here), (_, there)) = (started(&bus), started(&bus));
    let (mut at_here, mut at_there) = (here.subscribe(), there.subscribe());
    let marked = loop {
        // The first announcement may precede the subscription of the other gateway.
        let marked = here.move_back(ROOM, ADA, 2, &Credential::default()).await.unwrap();
        if let Ok(Ok(markers)) = tokio::time::timeout(Duration::from_millis(200), at_there.recv()).await {
            assert_eq!(markers.len(), 1);
            assert_eq!(markers[0], moved((ROOM, ADA), &marked));
            break marked;
        }
    };
    assert_eq!(at_here.recv().await.unwrap()[0], moved((ROOM, ADA), &marked));
    bus.publish(MARKS, vec![0x5a; 100]);
    let short = MovedMarker { room_id: vec![1], ..moved((ROOM, ADA), &marked) };
    bus.publish(MARKS, MovedMarkers { origin: "x".into(), markers: vec![short] }.encode_to_vec());
    here.move_back(ROOM, ADA, 9, &Credential::default()).await.unwrap();
    loop {
        let markers = at_there.recv().await.unwrap();
        assert_eq!(markers[0].room_id.len(), 16);
        if markers[0].seq == 9 {
            return;
        }
    }
}

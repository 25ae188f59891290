mod credentials;
mod reacting;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use confab_common::Code;
use confab_common::grpc::Services;
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::{AppendRequest, AppendResponse, Event, Outcome, Refusal, outcome};
use parking_lot::Mutex;
use prost::Message;

use super::*;
use crate::testing::services::ROOM;
use crate::testing::{eventually, fake};

const TIMEOUT: Duration = Duration::from_millis(2500);

/// What the message service does with an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stored,
    /// The event is rejected with `unavailable`.
    Rejected,
    /// The whole call is.
    Failed,
}

#[derive(Default)]
struct Log {
    /// The contents and ids of all events that arrived.
    attempts: Vec<(String, String)>,
    /// The contents of the stored events.
    stored: Vec<String>,
}

impl Log {
    fn attempts(&self, content: &str) -> usize {
        self.attempts.iter().filter(|(arrived, _)| arrived == content).count()
    }
}

/// A sender to a message service that treats events as `verdict` says.
fn sender(verdict: impl Fn(&NewEvent) -> Verdict + Send + Sync + 'static) -> (Sender, Arc<Mutex<Log>>) {
    let log = Arc::<Mutex<Log>>::default();
    let of_service = log.clone();
    let message = fake(move |_, body| {
        let mut log = of_service.lock();
        let mut outcomes = Vec::new();
        for event in AppendRequest::decode(body).unwrap().events {
            log.attempts.push((event.content.clone(), event.id.clone()));
            let result = match verdict(&event) {
                Verdict::Failed => return Err(Error::unavailable("the log")),
                Verdict::Rejected => {
                    outcome::Result::Refusal(Refusal { code: "unavailable".into(), detail: "not now".into() })
                }
                Verdict::Stored => {
                    log.stored.push(event.content.clone());
                    outcome::Result::Event(Event { id: event.id, content: event.content, ..Event::default() })
                }
            };
            outcomes.push(Outcome { result: Some(result), duplicate: false });
        }
        Ok(AppendResponse { epoch: "e".into(), outcomes }.encode_to_vec())
    });
    let clients = Clients::new(Services { message, ..Services::none() }, TIMEOUT);
    (Sender::new(&clients), log)
}

/// Begins a send of this user.
fn begin(sender: &Sender, user: u128, content: &str) -> Result<Sending> {
    let user = UserRef { id: Uuid::from_u128(user).to_string(), username: "ada".into() };
    let (id, room_id) = (Uuid::now_v7().to_string(), ROOM.into());
    let event = NewEvent { id, room_id, sender: Some(user), content: content.into(), ..NewEvent::default() };
    sender.begin(ROOM.parse().unwrap(), event, Credential::default(), TIMEOUT)
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_rejected_for_now_is_repeated_with_its_id() {
    for refused in [Verdict::Rejected, Verdict::Failed] {
        let tries = AtomicU32::new(0);
        let is_early = move || tries.fetch_add(1, Ordering::SeqCst) < 3;
        let (sender, log) = sender(move |_| if is_early() { refused } else { Verdict::Stored });
        let sent = begin(&sender, 1, "tea").unwrap().outcome().await.unwrap();
        let log = log.lock();
        assert_eq!(log.attempts, vec![("tea".to_owned(), sent.message.id); 4]);
        assert_eq!(log.stored, ["tea"]);
    }
}

#[tokio::test(start_paused = true)]
async fn later_sends_of_the_user_wait_and_other_sends_go_on() {
    let away = Arc::new(AtomicBool::new(true));
    let rejects = away.clone();
    let (sender, log) = sender(move |event| {
        if event.content == "first" && rejects.load(Ordering::SeqCst) { Verdict::Rejected } else { Verdict::Stored }
    });
    let first = begin(&sender, 1, "first").unwrap();
    eventually(|| log.lock().attempts("first") > 0).await;
    let (second, other) = (begin(&sender, 1, "second").unwrap(), begin(&sender, 2, "other").unwrap());
    other.outcome().await.unwrap();
    eventually(|| log.lock().attempts("first") > 2).await;
    away.store(false, Ordering::SeqCst);
    first.outcome().await.unwrap();
    second.outcome().await.unwrap();
    assert_eq!(log.lock().stored, ["other", "first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn a_send_is_unavailable_when_no_time_is_left_for_another_attempt() {
    let (sender, log) = sender(|_| Verdict::Rejected);
    let begun = Instant::now();
    let refused = begin(&sender, 1, "tea").unwrap().outcome().await.unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Unavailable, true));
    assert!((Duration::from_millis(1500)..TIMEOUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let attempts = log.lock().attempts("tea");
    assert!((5..=15).contains(&attempts), "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn a_send_that_a_later_one_has_overtaken_is_not_repeated() {
    let (sender, log) = sender(|event| if event.content == "first" { Verdict::Rejected } else { Verdict::Stored });
    // Both go into one append, because the lane has not run yet.
    let (first, second) = (begin(&sender, 1, "first").unwrap(), begin(&sender, 1, "second").unwrap());
    assert_eq!(first.outcome().await.unwrap_err().code, Code::Unavailable);
    second.outcome().await.unwrap();
    let log = log.lock();
    assert_eq!((log.attempts("first"), log.attempts("second")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn held_sends_count_against_the_bound_of_the_lane() {
    let (sender, log) = sender(|_| Verdict::Failed);
    let pending: Vec<_> = (0..QUEUE).map(|_| begin(&sender, 1, "tea").unwrap()).collect();
    eventually(|| !log.lock().attempts.is_empty()).await;
    assert_eq!(begin(&sender, 2, "coffee").err().map(|error| error.code), Some(Code::Unavailable));
    for sending in pending {
        assert_eq!(sending.outcome().await.unwrap_err().code, Code::Unavailable);
    }
    assert!(begin(&sender, 2, "coffee").is_ok());
}

#[tokio::test]
async fn a_send_that_may_be_stored_is_never_unavailable() {
    for (is_uncertain, code) in [(false, Code::Unavailable), (true, Code::Timeout)] {
        let (answer, receiver) = oneshot::channel();
        let event = NewEvent::default();
        let space = Arc::<Load>::default().add(&event).unwrap();
        let (line, span, deadline) = ((Uuid::nil(), Uuid::nil()), Span::default(), Instant::now() + TIMEOUT);
        let credential = Credential::default();
        Job { event, credential, line, deadline, answer, is_uncertain, refusals: 0, span, space }.refuse();
        assert_eq!(receiver.await.unwrap().unwrap_err().code, code);
    }
}

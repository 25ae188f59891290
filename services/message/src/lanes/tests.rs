//! Lanes over a store that tests can block, make fail, and inspect.

mod reacting;

use std::collections::VecDeque;
use std::time::Duration;

use confab_common::bus::{Bus, Notice};
use confab_common::{Code, Result, Secret, testing};
use confab_proto::{channel, message::v1::Hint};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::queue::QUEUE_BYTES;
use super::*;
use crate::store::sqlite::Sqlite;
use crate::store::{
    AppendError, Appended, Body, ChangeStore, Changed, ChangedBetween, Erased, Event, Head, Heads, Kind, LastTimes,
    Limit, Member, Opened, Outcome, Page, Readers, Reopening, RoomAccess, RoomHead, RoomKey, Versions, Window,
    client_id, delegated, delegated_changes,
};

const PARTITIONS: u32 = 64;

struct HeldStore {
    store: Sqlite,
    /// The contents of each append.
    batches: Mutex<Vec<Vec<String>>>,
    begun: Notify,
    /// Each append takes one permit.
    gate: Semaphore,
    /// How the next appends fail.
    failures: Mutex<VecDeque<AppendError>>,
}

impl HeldStore {
    fn batches(&self) -> Vec<Vec<String>> {
        self.batches.lock().clone()
    }

    async fn begun(&self, count: usize) {
        while self.batches().len() < count {
            self.begun.notified().await;
        }
    }

    fn fail(&self, codes: &[Code]) {
        self.failures.lock().extend(codes.iter().map(|code| AppendError::Failed(Error::new(*code, "on purpose"))));
    }
}

impl Store for HeldStore {
    fn append<'a>(
        &'a self,
        batch: &'a [Arc<EventData>],
        created_at_ms: i64,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        async move {
            self.batches.lock().push(batch.iter().map(|data| data.body.content.clone()).collect());
            self.begun.notify_one();
            self.gate.acquire().await.unwrap().forget();
            if let Some(failure) = self.failures.lock().pop_front() {
                return Err(failure);
            }
            if batch.iter().any(|data| data.body.content == "poison") {
                return Err(Error::internal("poison").into());
            }
            self.store.append(batch, created_at_ms).await
        }
        .boxed()
    }

    fn marks(&self) -> &dyn crate::store::MarkStore {
        self.store.marks()
    }

    delegated!();

    fn list(
        &self,
        room: RoomKey,
        window: Window,
        limit: Limit,
        readers: Readers,
    ) -> BoxFuture<'_, Result<(Page, RoomAccess)>> {
        self.store.list(room, window, limit, readers)
    }
    fn read_log(&self, partition: u32, after: u64, limit: Limit) -> BoxFuture<'_, Result<Page>> {
        self.store.read_log(partition, after, limit)
    }
}

delegated_changes!(HeldStore);

struct Fixture {
    store: Arc<HeldStore>,
    epoch: Uuid,
    lanes: Arc<Lanes>,
    bus: Bus,
}

impl Fixture {
    async fn with_permits(permits: usize) -> Self {
        let store = Arc::new(HeldStore {
            store: Sqlite::open(&testing::directory().join("message.db")).unwrap(),
            batches: Mutex::default(),
            begun: Notify::new(),
            gate: Semaphore::new(permits),
            failures: Mutex::default(),
        });
        let epoch = store.open_log(PARTITIONS).await.unwrap().epoch;
        store.open_room((7, Uuid::nil()), false, Vec::new()).await.unwrap();
        let bus = Bus::open(&Secret::from("local:"), None).unwrap();
        let lanes = Arc::new(Lanes::start(1, PARTITIONS, &(store.clone() as Arc<dyn Store>), &Hints::new(bus.clone())));
        Self { store, epoch, lanes, bus }
    }

    async fn blocked() -> Self {
        Self::with_permits(0).await
    }

    async fn open() -> Self {
        Self::with_permits(Semaphore::MAX_PERMITS).await
    }

    /// Queues one group and yields, so that it is queued before the next.
    async fn send(&self, contents: &[&str], timeout: Duration) -> tokio::task::JoinHandle<Vec<Answer>> {
        let rows = contents.iter().map(|content| pending(content, timeout)).collect();
        let lanes = self.lanes.clone();
        let sent = tokio::spawn(async move { lanes.append(rows).await });
        tokio::task::yield_now().await;
        sent
    }
}

const LONG: Duration = Duration::from_secs(60);

fn pending(content: &str, timeout: Duration) -> Pending {
    let id = Uuid::now_v7();
    let body = Body { sender_username: "ada".into(), content: content.into(), ..Body::default() };
    let data = EventData {
        partition: 7,
        room: Uuid::nil(),
        id,
        kind: Kind::Message,
        sender: Uuid::nil(),
        client_id: client_id(None, id),
        body,
        change: None,
        closes_room: false,
    };
    Pending { data: Arc::new(data), deadline: Instant::now() + timeout, span: Span::default() }
}

/// Returns the position of each answer, or the code of its rejection.
fn outcomes(answers: Vec<Answer>) -> Vec<Result<u64, Code>> {
    let position = |answer: Answer| match answer {
        Ok((_, Outcome::Appended(event) | Outcome::Repeated(event))) => Ok(event.position),
        Ok((_, Outcome::Hidden)) => Err(Code::NotFound),
        Ok((_, outcome)) => panic!("{outcome:?}"),
        Err(error) => Err(error.code),
    };
    answers.into_iter().map(position).collect()
}

#[tokio::test(start_paused = true)]
async fn queued_rows_go_into_the_next_append() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let second = fixture.send(&["b", "c"], LONG).await;
    let third = fixture.send(&["d"], LONG).await;
    fixture.store.gate.add_permits(2);
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    assert_eq!(outcomes(second.await.unwrap()), [Ok(2), Ok(3)]);
    assert_eq!(outcomes(third.await.unwrap()), [Ok(4)]);
    assert_eq!(fixture.store.batches(), [vec!["a"], vec!["b", "c", "d"]]);
}

#[tokio::test(start_paused = true)]
async fn append_is_bounded_but_groups_are_not_split() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let mut groups = vec![first];
    for size in [200, 100, 300, 1] {
        groups.push(fixture.send(&vec!["x"; size], LONG).await);
    }
    fixture.store.gate.add_permits(9);
    for group in groups {
        assert!(outcomes(group.await.unwrap()).iter().all(Result::is_ok));
    }
    let sizes: Vec<_> = fixture.store.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 200, 100, 300, 1]);
}

#[tokio::test(start_paused = true)]
async fn row_past_its_deadline_is_dropped() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let late = fixture.send(&["late"], Duration::from_millis(100)).await;
    let patient = fixture.send(&["patient"], LONG).await;
    tokio::time::advance(Duration::from_millis(200)).await;
    fixture.store.gate.add_permits(2);
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    assert_eq!(outcomes(late.await.unwrap()), [Err(Code::Timeout)]);
    assert_eq!(outcomes(patient.await.unwrap()), [Ok(2)]);
    assert_eq!(fixture.store.batches(), [["a"], ["patient"]]);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_dropped_caller_are_not_appended() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let gone = fixture.send(&["gone"], LONG).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let last = fixture.send(&["b"], LONG).await;
    fixture.store.gate.add_permits(2);
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    assert_eq!(outcomes(last.await.unwrap()), [Ok(2)]);
    assert_eq!(fixture.store.batches(), [["a"], ["b"]]);
}

#[tokio::test(start_paused = true)]
async fn stalled_lane_rejects_new_rows() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let queued = fixture.send(&["b"], LONG).await;
    tokio::time::advance(Duration::from_millis(999)).await;
    let in_time = fixture.send(&["c"], LONG).await;
    tokio::time::advance(Duration::from_millis(2)).await;
    assert_eq!(outcomes(fixture.lanes.append(vec![pending("d", LONG)]).await), [Err(Code::Unavailable)]);
    fixture.store.gate.add_permits(3);
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    assert_eq!(outcomes(queued.await.unwrap()), [Ok(2)]);
    assert_eq!(outcomes(in_time.await.unwrap()), [Ok(3)]);
    assert_eq!(outcomes(fixture.lanes.append(vec![pending("e", LONG)]).await), [Ok(4)]);
}

#[tokio::test(start_paused = true)]
async fn queue_is_bounded_in_bytes() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let large = "x".repeat(QUEUE_BYTES / 8);
    let mut queued = Vec::new();
    for _ in 0..7 {
        queued.push(fixture.send(&[&large], LONG).await);
    }
    assert_eq!(outcomes(fixture.lanes.append(vec![pending(&large, LONG)]).await), [Err(Code::Unavailable)]);
    fixture.store.gate.add_permits(9);
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    for group in queued {
        assert!(outcomes(group.await.unwrap())[0].is_ok());
    }
    assert!(outcomes(fixture.lanes.append(vec![pending(&large, LONG)]).await)[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn poisoned_row_fails_alone() {
    let fixture = Fixture::open().await;
    let answers = fixture.send(&["a", "b", "poison", "c", "d"], LONG).await.await.unwrap();
    assert_eq!(outcomes(answers), [Ok(1), Ok(2), Err(Code::Internal), Ok(3), Ok(4)]);
}

#[tokio::test(start_paused = true)]
async fn no_row_overtakes_a_rejected_row_of_its_room() {
    let fixture = Fixture::open().await;
    // The batch is split, and its first half is rejected.
    fixture.store.fail(&[Code::Internal, Code::Unavailable]);
    let answers = fixture.send(&["a", "b", "c", "d"], LONG).await.await.unwrap();
    assert_eq!(outcomes(answers), [Err(Code::Unavailable); 4]);
    assert_eq!(fixture.store.batches(), [vec!["a", "b", "c", "d"], vec!["a", "b"]]);
}

#[tokio::test(start_paused = true)]
async fn no_row_overtakes_a_locked_row() {
    let fixture = Fixture::open().await;
    fixture.store.fail(&[Code::Internal]);
    fixture.store.failures.lock().push_back(AppendError::Locked);
    let answers = fixture.send(&["a", "b", "c", "d"], LONG).await.await.unwrap();
    assert_eq!(outcomes(answers), [Ok(1), Ok(2), Ok(3), Ok(4)]);
    assert_eq!(fixture.store.batches(), [vec!["a", "b", "c", "d"], vec!["a", "b"], vec!["a", "b", "c", "d"]]);
}

#[tokio::test(start_paused = true)]
async fn locked_rows_precede_later_rows() {
    let fixture = Fixture::blocked().await;
    fixture.store.failures.lock().extend([AppendError::Locked, AppendError::Locked]);
    let mut sent = Vec::new();
    // Once among all partitions, once aside.
    for (n, content) in ["a", "b", "c"].into_iter().enumerate() {
        fixture.store.begun(n).await;
        sent.push(fixture.send(&[content], LONG).await);
        fixture.store.gate.add_permits(n);
    }
    for (n, sent) in sent.into_iter().enumerate() {
        assert_eq!(outcomes(sent.await.unwrap()), [Ok(n as u64 + 1)]);
    }
    assert_eq!(fixture.store.batches(), [vec!["a"], vec!["a", "b"], vec!["a", "b", "c"]]);
}

#[tokio::test(start_paused = true)]
async fn batch_with_unknown_outcome_is_resent_whole() {
    let fixture = Fixture::open().await;
    // The rejection of the second attempt does not show the outcome of the first attempt.
    fixture.store.fail(&[Code::Timeout, Code::Unavailable]);
    assert_eq!(outcomes(fixture.send(&["a", "b"], LONG).await.await.unwrap()), [Ok(1), Ok(2)]);
    assert_eq!(fixture.store.batches(), [["a", "b"]; 3]);
}

#[tokio::test(start_paused = true)]
async fn outcome_that_stays_unknown_is_a_timeout() {
    let fixture = Fixture::open().await;
    fixture.store.fail(&[Code::Timeout, Code::Timeout, Code::Unavailable, Code::Timeout]);
    assert_eq!(outcomes(fixture.send(&["a"], LONG).await.await.unwrap()), [Err(Code::Timeout)]);
    assert_eq!(fixture.store.batches().len(), 4);
    fixture.store.fail(&[Code::Timeout]);
    let hasty = fixture.send(&["b"], Duration::from_millis(10)).await.await.unwrap();
    assert_eq!(outcomes(hasty), [Err(Code::Timeout)]);
    assert_eq!(fixture.store.batches().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn rejected_batch_is_answered_at_once() {
    let fixture = Fixture::open().await;
    fixture.store.fail(&[Code::Unavailable]);
    assert_eq!(outcomes(fixture.send(&["a", "b"], LONG).await.await.unwrap()), [Err(Code::Unavailable); 2]);
    assert_eq!(fixture.store.batches().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_appends_queued_rows_and_rejects_new_ones() {
    let fixture = Fixture::blocked().await;
    let first = fixture.send(&["a"], LONG).await;
    fixture.store.begun(1).await;
    let second = fixture.send(&["b"], LONG).await;
    let lanes = fixture.lanes.clone();
    let finished = tokio::spawn(async move { lanes.finish().await });
    tokio::task::yield_now().await;
    assert_eq!(outcomes(fixture.lanes.append(vec![pending("c", LONG)]).await), [Err(Code::Unavailable)]);
    fixture.store.gate.add_permits(2);
    finished.await.unwrap();
    assert_eq!(outcomes(first.await.unwrap()), [Ok(1)]);
    assert_eq!(outcomes(second.await.unwrap()), [Ok(2)]);
}

#[tokio::test(start_paused = true)]
async fn hints_are_dense_ordered_and_bounded() {
    let fixture = Fixture::open().await;
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(7)).await;
    let large = "x".repeat(10_000);
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(fixture.send(&["a", "poison", "b"], LONG).await);
        sent.push(fixture.send(&[large.as_str(); 60], LONG).await);
    }
    for group in sent {
        group.await.unwrap();
    }
    let mut position = 0;
    while position < 5 * 62 {
        let Some(Notice::Message { payload, .. }) = notices.next().await else { continue };
        assert!(payload.len() <= 256 * 1024);
        let hint = Hint::decode(payload).unwrap();
        assert_eq!(
            (hint.partition, hint.first_position, hint.epoch.as_str()),
            (7, position + 1, fixture.epoch.to_string().as_str())
        );
        for event in hint.events {
            position += 1;
            assert_eq!(event.position, position);
        }
    }
}

//! Lanes over a real Postgres, while another transaction locks a head and while the server stops answering.

use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::pg::PostgresConfig;
use confab_common::testing::{self, SilentProxy};
use confab_common::{Code, Result, Secret};
use futures::future::join_all;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::store::postgres::Postgres;
use crate::store::{Body, Kind, Limit, Outcome, Window, client_id};

const PARTITIONS: u32 = 4;
const LOCKED: u32 = 1;
const SPEAKERS: usize = 3;
/// How long an append waits for a head; the migrations set the same value.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// Bound on every step, long enough for a machine that stands still for a while.
const STEP_LIMIT: Duration = Duration::from_secs(60);
const ALL: Limit = Limit { events: 100_000, bytes: u32::MAX };

struct Fixture {
    store: Arc<dyn Store>,
    lanes: Lanes,
}

impl Fixture {
    /// Opens a store with one lane for all partitions.
    async fn open(url: &Secret) -> Self {
        let config = PostgresConfig { postgres_connections: 12, ..PostgresConfig::default() };
        let store: Arc<dyn Store> = Arc::new(Postgres::open(url, &config).await.unwrap());
        store.open_log(PARTITIONS).await.unwrap();
        for partition in 0..PARTITIONS {
            store.open_room((partition, room(partition)), false, Vec::new()).await.unwrap();
        }
        let bus = Bus::open(&Secret::from("local:"), None).unwrap();
        let lanes = Lanes::start(1, PARTITIONS, &store, &Hints::new(bus));
        Self { store, lanes }
    }

    /// Sends to the room of each partition at once. Returns each outcome and the total time.
    async fn send(&self, rows: &[(u32, String)]) -> (Vec<Result<Outcome>>, Duration) {
        let begun = Instant::now();
        let rows = rows.iter().map(|(partition, content)| pending(*partition, content)).collect();
        let answers = self.lanes.append(rows).await;
        (answers.into_iter().map(|answer| answer.map(|(_, outcome)| outcome)).collect(), begun.elapsed())
    }

    /// Sends numbered messages one after another until `enough` holds. A rejected message was not appended.
    async fn talk(&self, partition: u32, speaker: usize, enough: impl Fn(&Talk) -> bool) -> Talk {
        let mut talk = Talk::default();
        for n in 0.. {
            if enough(&talk) {
                break;
            }
            let content = format!("{speaker}:{n}");
            let (mut outcomes, took) = self.send(&[(partition, content.clone())]).await;
            match outcomes.remove(0) {
                Ok(_) => {
                    talk.acknowledged.push(content);
                    talk.took.push(took);
                }
                Err(error) => {
                    assert_eq!(error.code, Code::Unavailable);
                    talk.refused.push(took);
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
        talk
    }

    /// Runs all speakers of a partition at once.
    async fn talks(&self, partition: u32, enough: impl Fn(&Talk) -> bool + Copy) -> Vec<Talk> {
        let talks = join_all((0..SPEAKERS).map(|speaker| self.talk(partition, speaker, enough)));
        timeout(STEP_LIMIT, talks).await.expect("the speakers are answered often enough")
    }

    async fn history(&self, partition: u32) -> Vec<String> {
        let (page, _) =
            self.store.list((partition, room(partition)), Window::After(0), ALL, Vec::new().into()).await.unwrap();
        let seqs = page.events.iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(seqs, (1..=page.events.len() as u64).collect::<Vec<_>>());
        page.events.into_iter().map(|event| event.data.body.content.clone()).collect()
    }

    /// Checks that the log has exactly the acknowledged messages, and each speaker's messages in order.
    async fn holds(&self, partition: u32, speakers: &[Vec<String>]) {
        let history = self.history(partition).await;
        for (speaker, acknowledged) in speakers.iter().enumerate() {
            let of_speaker = history.iter().filter(|content| content.starts_with(&format!("{speaker}:")));
            assert!(of_speaker.eq(acknowledged), "partition {partition}, speaker {speaker}");
        }
        assert_eq!(history.len(), speakers.iter().map(Vec::len).sum::<usize>());
    }
}

#[derive(Default)]
struct Talk {
    acknowledged: Vec<String>,
    /// How long each acknowledged message took.
    took: Vec<Duration>,
    /// How long each rejection took.
    refused: Vec<Duration>,
}

fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// Returns a room for a partition; in this test the partition does not depend on the room id.
fn room(partition: u32) -> Uuid {
    Uuid::from_u128(partition.into())
}

fn pending(partition: u32, content: &str) -> Pending {
    let id = Uuid::now_v7();
    let body = Body { sender_username: "ada".into(), content: content.into(), ..Body::default() };
    let data = EventData {
        partition,
        room: room(partition),
        id,
        kind: Kind::Message,
        sender: Uuid::nil(),
        client_id: client_id(None, id),
        body,
        change: None,
        closes_room: false,
    };
    Pending { data: Arc::new(data), deadline: Instant::now() + Duration::from_secs(15), span: Span::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_head_does_not_delay_other_partitions() {
    let url = testing::database().await;
    let fixture = Fixture::open(&url).await;
    let (mut client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = client.transaction().await.unwrap();
    lock.query("SELECT 1 FROM message.partitions WHERE partition = $1 FOR UPDATE", &[&(LOCKED as i32)]).await.unwrap();

    let begun = Instant::now();
    let for_a_while = || begun.elapsed() > Duration::from_secs(3);
    let received = |talk: &Talk| for_a_while() && talk.acknowledged.len() >= 30;
    let refused = |talk: &Talk| for_a_while() && talk.refused.len() >= 5;
    let (neighbours, others, locked) =
        tokio::join!(fixture.talks(0, received), fixture.talks(3, received), fixture.talks(LOCKED, refused));
    for talk in neighbours.iter().chain(&others) {
        assert!(median(&talk.took) < LOCK_TIMEOUT / 2, "{:?}", talk.took);
        // When the whole machine stands still the queue rejects rows, but at once: a late rejection has waited for the
        // lock.
        let late = talk.refused.iter().filter(|took| **took > LOCK_TIMEOUT / 2).count();
        assert!(late * 10 < talk.took.len(), "{:?}", talk.refused);
    }
    for talk in &locked {
        assert!(talk.acknowledged.is_empty());
        assert!(median(&talk.refused) < Duration::from_secs(1), "{:?}", talk.refused);
    }
    // A caller that sends to both partitions at once gets both outcomes.
    let (both, _) = fixture.send(&[(LOCKED, "never".into()), (2, "0:0".into())]).await;
    assert_eq!(both[0].as_ref().unwrap_err().code, Code::Unavailable);
    assert!(both[1].is_ok());

    lock.rollback().await.unwrap();
    let back = fixture.talks(LOCKED, |talk| talk.acknowledged.len() > 1).await;
    for (partition, talks) in [(0, neighbours), (3, others), (LOCKED, back)] {
        fixture.holds(partition, &talks.into_iter().map(|talk| talk.acknowledged).collect::<Vec<_>>()).await;
    }
    fixture.lanes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_a_lock_are_appended_in_order() {
    let url = testing::database().await;
    let fixture = Fixture::open(&url).await;
    let (mut client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let (mut acknowledged, mut whole) = ([vec![], vec![]], 0);
    for round in 0..20 {
        let lock = client.transaction().await.unwrap();
        lock.query("SELECT 1 FROM message.partitions WHERE partition = $1 FOR UPDATE", &[&(LOCKED as i32)])
            .await
            .unwrap();
        // Longer than one attempt, shorter than the queue's age limit.
        let unlock = async {
            sleep(Duration::from_millis(130)).await;
            lock.rollback().await.unwrap();
        };
        let sends = join_all((0..10).map(async |n| {
            sleep(Duration::from_millis(n * 12)).await;
            let rows = [(0, format!("0:{round}.{n}")), (LOCKED, format!("0:{round}.{n}"))];
            fixture.send(&rows).await.0
        }));
        let (outcomes, ()) = tokio::join!(sends, unlock);
        for (n, outcomes) in outcomes.iter().enumerate() {
            for (acknowledged, outcome) in acknowledged.iter_mut().zip(outcomes) {
                match outcome {
                    Ok(_) => acknowledged.push(format!("0:{round}.{n}")),
                    Err(error) => assert_eq!(error.code, Code::Unavailable),
                }
            }
        }
        // A rejection in a round only shows that the machine stood still and a row waited too long.
        whole += usize::from(outcomes.iter().flatten().all(Result::is_ok));
        if whole == 5 {
            break;
        }
    }
    assert_eq!(whole, 5);
    assert_eq!(fixture.history(0).await, acknowledged[0]);
    assert_eq!(fixture.history(LOCKED).await, acknowledged[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_server_does_not_block_a_lane() {
    let proxy = SilentProxy::to(&testing::database().await).await;
    let fixture = Fixture::open(&proxy.url()).await;
    assert!(fixture.send(&[(0, "before".into())]).await.0[0].is_ok());
    proxy.silence_old();
    for content in ["meanwhile", "after"] {
        // The outcome of the first append is unknown until another connection reveals it.
        let sent = timeout(Duration::from_secs(20), fixture.send(&[(0, content.into())])).await;
        assert!(sent.expect("an answer").0[0].is_ok());
    }
    assert_eq!(fixture.history(0).await, ["before", "meanwhile", "after"]);
}

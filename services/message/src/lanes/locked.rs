//! Lanes over a real Postgres in which somebody else holds a head, and over one that falls silent.

use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::config::Migrate;
use confab_common::pg::PostgresConfig;
use confab_common::testing::{self, Wire};
use confab_common::{Code, Result, Secret};
use futures::future::join_all;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;
use crate::store::postgres::Postgres;
use crate::store::{Body, Kind, Limit, Outcome, Window, client_id};

const PARTITIONS: u32 = 4;
const LOCKED: u32 = 1;
const ALL: Limit = Limit { events: 100_000, bytes: u32::MAX };

struct Fixture {
    store: Arc<dyn Store>,
    lanes: Lanes,
}

impl Fixture {
    /// One lane for all partitions.
    async fn open(url: &Secret) -> Self {
        let config = PostgresConfig { migrate: Migrate::Auto, postgres_connections: 12, patience: None };
        let store: Arc<dyn Store> = Arc::new(Postgres::open(url, &config).await.unwrap());
        store.open_log(PARTITIONS).await.unwrap();
        let bus = Bus::open(&Secret::from("local:"), None).unwrap();
        let lanes = Lanes::start(1, PARTITIONS, &store, &Hints::new(bus));
        Self { store, lanes }
    }

    /// Sends to the room of each partition at once: what became of each, and how long it took.
    async fn send(&self, rows: &[(u32, String)]) -> (Vec<Result<Outcome>>, Duration) {
        let begun = Instant::now();
        let rows = rows.iter().map(|(partition, content)| pending(*partition, content)).collect();
        let answers = self.lanes.append(rows).await;
        (answers.into_iter().map(|answer| answer.map(|(_, outcome)| outcome)).collect(), begun.elapsed())
    }

    /// Sends one numbered message after another for so long: those acknowledged, those refused and how, and the durations.
    async fn talk(&self, partition: u32, speaker: usize, duration: Duration) -> Talk {
        let (begun, mut talk) = (Instant::now(), Talk::default());
        for n in 0.. {
            if begun.elapsed() > duration {
                break;
            }
            let content = format!("{speaker}:{n}");
            let (mut outcomes, took) = self.send(&[(partition, content.clone())]).await;
            match outcomes.remove(0) {
                Ok(_) => talk.acknowledged.push(content),
                Err(error) => talk.refused.push(error.code),
            }
            talk.durations.push(took);
            sleep(Duration::from_millis(2)).await;
        }
        talk
    }

    async fn history(&self, partition: u32) -> Vec<String> {
        let page = self.store.list((partition, room(partition)), Window::After(0), ALL).await.unwrap();
        let seqs = page.events.iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(seqs, (1..=page.events.len() as u64).collect::<Vec<_>>());
        page.events.into_iter().map(|event| event.draft.body.content.clone()).collect()
    }

    /// What speakers had acknowledged is there, nothing else, and each's in the order it was sent.
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
    refused: Vec<Code>,
    durations: Vec<Duration>,
}

/// Partitions are given here, not taken from the room.
fn room(partition: u32) -> Uuid {
    Uuid::from_u128(partition.into())
}

fn pending(partition: u32, content: &str) -> Pending {
    let id = Uuid::now_v7();
    let body = Body { sender_username: "ada".into(), content: content.into(), ..Body::default() };
    let draft = Draft {
        partition,
        room: room(partition),
        id,
        kind: Kind::Message,
        sender: Uuid::nil(),
        client_id: client_id(None, id),
        body,
        closes_room: false,
    };
    Pending { draft: Arc::new(draft), deadline: Instant::now() + Duration::from_secs(15), span: Span::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_head_holds_up_nobody_else() {
    const SPEAKERS: usize = 3;
    let url = testing::database().await;
    let fixture = Fixture::open(&url).await;
    let (mut client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = client.transaction().await.unwrap();
    lock.query("SELECT 1 FROM message.partitions WHERE partition = $1 FOR UPDATE", &[&(LOCKED as i32)]).await.unwrap();

    let while_locked = Duration::from_secs(3);
    let talks = |partition| join_all((0..SPEAKERS).map(move |speaker| (partition, speaker)).map(|(p, s)| fixture.talk(p, s, while_locked)));
    let (neighbours, others, locked) = tokio::join!(talks(0), talks(3), talks(LOCKED));
    for talk in neighbours.iter().chain(&others) {
        assert_eq!(talk.refused, [], "of {}", talk.durations.len());
        let mut durations = talk.durations.clone();
        durations.sort();
        assert!(durations[durations.len() * 95 / 100] < Duration::from_millis(250), "{durations:?}");
        assert!(durations.last().unwrap() < &Duration::from_millis(700), "{durations:?}");
    }
    for talk in &locked {
        assert!(talk.acknowledged.is_empty());
        assert!(talk.refused.len() >= 3 && talk.refused.iter().all(|code| *code == Code::Unavailable), "{:?}", talk.refused);
        assert!(talk.durations.iter().max().unwrap() < &Duration::from_secs(1), "{:?}", talk.durations);
    }
    // Who sends to both at once learns both.
    let (both, _) = fixture.send(&[(LOCKED, "never".into()), (2, "0:0".into())]).await;
    assert_eq!(both[0].as_ref().unwrap_err().code, Code::Unavailable);
    assert!(both[1].is_ok());

    lock.rollback().await.unwrap();
    let after = Duration::from_millis(500);
    let back = join_all((0..SPEAKERS).map(|speaker| fixture.talk(LOCKED, speaker, after))).await;
    assert!(back.iter().all(|talk| talk.refused.is_empty() && talk.acknowledged.len() > 1));
    for (partition, talks) in [(0, neighbours), (3, others), (LOCKED, back)] {
        fixture.holds(partition, &talks.into_iter().map(|talk| talk.acknowledged).collect::<Vec<_>>()).await;
    }
    fixture.lanes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lock_comes_in_order_when_it_is_gone() {
    let url = testing::database().await;
    let fixture = Fixture::open(&url).await;
    let (mut client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for round in 0..5 {
        let lock = client.transaction().await.unwrap();
        lock.query("SELECT 1 FROM message.partitions WHERE partition = $1 FOR UPDATE", &[&(LOCKED as i32)]).await.unwrap();
        // Longer than one attempt, shorter than the queue's age.
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
        assert!(outcomes.iter().flatten().all(Result::is_ok), "{outcomes:?}");
    }
    let all = (0..5).flat_map(|round| (0..10).map(move |n| format!("0:{round}.{n}"))).collect::<Vec<_>>();
    assert_eq!(fixture.history(LOCKED).await, all);
    assert_eq!(fixture.history(0).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_holds_no_lane() {
    let wire = Wire::to(&testing::database().await).await;
    let fixture = Fixture::open(&wire.url()).await;
    assert!(fixture.send(&[(0, "before".into())]).await.0[0].is_ok());
    wire.silence_old();
    // Its outcome is unknown until another connection tells.
    let (outcomes, took) = fixture.send(&[(0, "meanwhile".into())]).await;
    assert!(outcomes[0].is_ok() && took < Duration::from_secs(10), "{outcomes:?} in {took:?}");
    assert!(fixture.send(&[(0, "after".into())]).await.1 < Duration::from_secs(1));
    assert_eq!(fixture.history(0).await, ["before", "meanwhile", "after"]);
}

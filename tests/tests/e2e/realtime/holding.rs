//! When one account makes the server buffer many bytes, only that account's sockets are closed; other accounts are not
//! affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, Polling, WebSocket, connect};
use confab_tests::wait::eventually;
use serde_json::json;
use tokio::task::JoinHandle;

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, memory, value};

/// The limit of buffered bytes of all sockets together.
const BUFFER_LIMIT: usize = 6_000_000;
/// How far the limit may be exceeded until the largest sockets are closed: some answers are prepared at the same time.
const BUFFER_OVERRUN: usize = 4_000_000;
/// Separates the packets of a payload.
const SEPARATOR: &str = "\u{1e}";

/// A client that polls while messages are sent. Every poll returns some messages, in order.
struct Poller {
    over: Arc<AtomicBool>,
    polling: JoinHandle<anyhow::Result<()>>,
}

impl Poller {
    async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let mut client = Polling::connect(&scene.url, &scene.account.token).await?;
        let joined = client.emit("joinRoom", json!(scene.room)).await?;
        let mut seq = joined["lastSeq"].as_u64().unwrap_or_default();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let polling = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let message = client.event("message").await?;
                seq += 1;
                anyhow::ensure!(message["seq"] == seq, "{seq}: {message}");
            }
            Ok(())
        });
        Ok(Self { over, polling })
    }

    async fn was_served(self) {
        self.over.store(true, Ordering::Relaxed);
        self.polling.await.expect("no panic").expect("every poll succeeds");
    }
}

/// The attack: repeated sends are short, their answers are long, and no session reads any.
struct Greedy {
    sessions: Vec<Polling>,
    sends: String,
}

impl Greedy {
    async fn at(server: &Embedded, rooms: usize, sessions: usize) -> anyhow::Result<Self> {
        let scene = Scene::at(server).await?;
        let mut sends = Vec::new();
        for _ in 0..rooms {
            let room = scene.api.room(&scene.account).await?;
            let message = json!({"roomId": room, "content": "x".repeat(16_000), "clientMessageId": "again"});
            scene.api.post("/api/messages", &scene.account, message).await?.expect(201)?;
            sends.push(format!(r#"421["message",{{"roomId":"{room}","content":"x","clientMessageId":"again"}}]"#));
        }
        let mut open = Vec::new();
        for _ in 0..sessions {
            let session = Polling::open(&scene.url).await?;
            session.post(connect(&scene.account.token)).await?;
            open.push(session);
        }
        let connected = async || (value(server, "confab_pending_sessions").await == 0.0).then_some(());
        eventually("they are connected", CLOSE_LIMIT, connected).await?;
        Ok(Self { sessions: open, sends: sends.join(SEPARATOR) })
    }

    /// Every session repeats all its sends, as far as the server reads them.
    async fn ask(&self) {
        for session in &self.sessions {
            let _ = session.post(self.sends.clone()).await;
        }
    }

    /// Returns how many of its sessions are still open.
    async fn standing(&self) -> usize {
        let mut standing = 0;
        for session in &self.sessions {
            standing += usize::from(session.post("3").await.is_ok_and(|(status, _)| status == 200));
        }
        standing
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_are_bounded_and_only_their_requester_is_closed() {
    let server = Embedded::start(&[("CONFAB_MAX_OUTBOX_BYTES", &BUFFER_LIMIT.to_string())]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let mut pollers = Vec::new();
    for _ in 0..4 {
        pollers.push(Poller::start(&scene).await.unwrap());
    }
    let writer = super::writer::Writer::start(&scene).await.unwrap();
    let bystanders = Bystanders::at(&server).await.unwrap();
    let greedy = Greedy::at(&server, 100, 20).await.unwrap();
    let before = memory(&server);
    let began = tokio::time::Instant::now();
    let (mut most, mut largest) = (0, 0);
    while began.elapsed() < Duration::from_secs(6) {
        greedy.ask().await;
        most = most.max(value(&server, "confab_outbox_bytes").await as usize);
        largest = largest.max(memory(&server).saturating_sub(before));
        // A new client can connect and join.
        let mut socket = scene.socket().await.unwrap();
        let joined = socket.emit("joinRoom", json!({"roomId": scene.room, "last": 10})).await.unwrap();
        assert_eq!(joined["ok"], true, "{joined}");
    }
    assert!(most > BUFFER_LIMIT / 4, "the attack must have an effect: {most}");
    assert!(most <= BUFFER_LIMIT + BUFFER_OVERRUN, "{most} bytes are buffered");
    assert!(largest <= 150_000_000, "{largest} bytes more");
    // In the end all its sessions are closed, although each continues to answer pings.
    let none = async || (greedy.standing().await == 0).then_some(());
    eventually("its sessions are closed", Duration::from_secs(40), none).await.unwrap();
    let gone = async || (value(&server, "confab_outbox_bytes").await < BUFFER_LIMIT as f64 / 4.0).then_some(());
    eventually("few bytes are buffered", Duration::from_secs(10), gone).await.unwrap();
    for poller in pollers {
        poller.was_served().await;
    }
    writer.more(1).await.unwrap();
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_packets_count_against_their_sender() {
    let server = Embedded::start(&[("CONFAB_MAX_OUTBOX_BYTES", "4000000")]).await.unwrap();
    let bystanders = Bystanders::at(&server).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let announcement = confab_tests::raw::text(r#"452-["fileUpload",{"data":{"_placeholder":true,"num":0}}]"#);
    let header = [&[0x82, 0xff][..], &1_000_000u64.to_be_bytes(), &[0; 4]].concat();
    let mut sockets = Vec::new();
    for n in 0..20 {
        let mut socket = scene.socket().await.unwrap();
        socket.write(&announcement).await.unwrap();
        // Half of the sessions announce a second attachment, the others leave the first one unfinished.
        let part = match n % 2 {
            0 => confab_tests::raw::binary(&vec![7; 800_000]),
            _ => [&header[..], &vec![7; 800_000]].concat(),
        };
        let _ = socket.write(&part).await;
        sockets.push(socket);
    }
    let bounded = async || (value(&server, "confab_outbox_bytes").await <= 4_000_000.0).then_some(());
    eventually("buffered bytes are within the limit", CLOSE_LIMIT, bounded).await.unwrap();
    assert!(value(&server, "confab_outbox_closes_total{reason=\"total\"}").await >= 10.0);
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_packets_of_upgrades_count_against_their_sender() {
    let server = Embedded::start(&[("CONFAB_MAX_OUTBOX_BYTES", "4000000")]).await.unwrap();
    let bystanders = Bystanders::at(&server).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let part = [&[0x81, 0xff][..], &1_000_000u64.to_be_bytes(), &[0; 4], &vec![7; 800_000]].concat();
    let mut probes = Vec::new();
    for _ in 0..20 {
        let session = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
        let mut probe = WebSocket::probe(&scene.url, session.sid()).await.unwrap().unwrap();
        let _ = probe.write(&part).await;
        probes.push((session, probe));
    }
    let ended = async || (value(&server, "confab_outbox_closes_total{reason=\"total\"}").await >= 10.0).then_some(());
    eventually("most of the sessions are closed", CLOSE_LIMIT, ended).await.unwrap();
    let bounded = async || (value(&server, "confab_outbox_bytes").await <= 4_000_000.0).then_some(());
    eventually("buffered bytes are within the limit", CLOSE_LIMIT, bounded).await.unwrap();
    drop(probes);
    let gone = async || (value(&server, "confab_outbox_bytes").await < 100_000.0).then_some(());
    eventually("no bytes are buffered", Duration::from_secs(15), gone).await.unwrap();
    bystanders.noticed_nothing().await;
}

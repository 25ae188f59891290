//! The object store or the file service is dead, frozen, or dies midway: a documented error in time, no leftovers, and
//! chat continues.

use std::time::{Duration, Instant};

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::cluster::Cluster;
use confab_tests::daemon::Daemon;
use confab_tests::form::{Form, content_type, file_headers};
use confab_tests::objects::{Objects, sha256};
use confab_tests::plan::Role;
use confab_tests::raw::Http;
use confab_tests::stock::{Report, Socket, Stock, Transports, bytes};
use confab_tests::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Scene, fails, url};
use crate::world;

const S3: (Role, u16) = (Role::S3, 1);
/// Time limit until an upload or download without a store is rejected.
const REJECTION_LIMIT: Duration = Duration::from_secs(10);
/// Time limit until everything works again, and leftovers are swept.
const RECOVERY_LIMIT: Duration = Duration::from_secs(40);

/// A scene in a breakable cluster, with a client that chats.
struct Broken {
    objects: Objects,
    /// Objects left by earlier tests.
    before: Vec<String>,
    scene: Scene,
    socket: Socket,
    _stock: Stock,
}

/// Freezes a store until this is dropped.
struct Frozen(Daemon);

impl Frozen {
    fn new(daemon: Daemon) -> Self {
        assert!(daemon.signal(Signal::STOP));
        Self(daemon)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// Checks the error while a store rejects requests or does not answer.
#[track_caller]
fn is_away(answer: &Answer) {
    let (status, code) = if answer.status == 504 { (504, "timeout") } else { (503, "unavailable") };
    fails(answer, status, code);
}

impl Broken {
    async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let [one, other] =
            <[Api; 2]>::try_from(world::gateways(cluster)).map_err(|_| anyhow::anyhow!("two gateways"))?;
        let scene = Scene::at(one, other).await?;
        let stock = Stock::javascript()?;
        let socket = stock.connect(&scene.other.url, &scene.account.token, Transports::WebSocket).await?;
        let ack = socket.emit("joinRoom", json!(scene.room)).await?;
        anyhow::ensure!(ack["ok"] == true, "{ack}");
        let objects = Objects::of(&cluster.daemon((Role::File, 1))?)?;
        let before = objects.all().await?;
        Ok(Self { objects, before, scene, socket, _stock: stock })
    }

    async fn upload(&self, form: Form) -> (Answer, Duration) {
        let begin = Instant::now();
        let answer = self.scene.one.upload(&self.scene.account, form).await.unwrap();
        (answer, begin.elapsed())
    }

    /// Starts an upload of 30 MB, of which more than half is sent and some is in the store.
    async fn half_uploaded(&self) -> anyhow::Result<Http> {
        let scene = &self.scene;
        let headers = format!("Authorization: Bearer {}\r\nContent-Type: {}\r\n", scene.account.token, content_type());
        let headers = format!("{headers}Content-Length: 30000000\r\n");
        let start = Form::new().field("roomId", &scene.room).part(file_headers("half", "a/b"), b"").into_open_body();
        let mut upload = Http::begin(&scene.one.url, "POST /api/files/upload", &headers).await?;
        upload.write(&start[..start.len() - 2]).await?;
        upload.write(&vec![2; 18_000_000]).await?;
        let begun =
            async || self.objects.all().await.ok()?.iter().any(|name| name.starts_with("unfinished")).then_some(());
        eventually("parts are in the store", REJECTION_LIMIT, begun).await?;
        Ok(upload)
    }

    /// Sends by REST and by socket, and receives both.
    async fn chats(&self) {
        let said = json!({"roomId": self.scene.room, "content": unique("by REST")});
        let first = self.scene.one.post("/api/messages", &self.scene.account, said).await.unwrap().expect(201).unwrap();
        let second = self
            .socket
            .emit("message", json!({"roomId": self.scene.room, "content": unique("by socket")}))
            .await
            .unwrap();
        assert_eq!(second["ok"], true, "{second}");
        let received = |_: &[Report]| {
            self.socket.events("message").ends_with(&[first.clone(), second["message"].clone()]).then_some(())
        };
        self.socket.until("both messages", REJECTION_LIMIT, received).await.unwrap();
    }

    /// Checks that every request that needs the content is rejected as documented, and every other request succeeds.
    async fn without_store(&self, known: &Value) {
        let (scene, text) = (&self.scene, b"some text".as_slice());
        let history = scene.history().await.len();
        let form = || Form::new().field("roomId", &scene.room).file("a.txt", "text/plain", text);
        let named = form().field("clientMessageId", &unique("lost"));
        let large = Form::new().file("large", "a/b", &vec![1; 20_000_000]);
        let download = async {
            let begin = Instant::now();
            (scene.get(url(known)).await, begin.elapsed())
        };
        let by_socket =
            self.socket.emit("fileUpload", json!({"roomId": scene.room, "name": "a.txt", "data": bytes(text)}));
        let (small, named, large, download, ack) =
            tokio::join!(self.upload(form()), self.upload(named), self.upload(large), download, by_socket);
        for (answer, waited) in [small, named, large, download] {
            is_away(&answer);
            assert!(waited < REJECTION_LIMIT, "{waited:?}");
        }
        let ack = ack.unwrap();
        assert!(matches!(ack["error"]["status"].as_u64(), Some(503 | 504)), "{ack}");

        // The metadata is in the database.
        let listed = scene.get("/api/files").await.expect(200).unwrap();
        assert!(listed["items"].as_array().unwrap().contains(known), "{listed}");
        let head = scene.other.call(reqwest::Method::HEAD, url(known), Some(&scene.account), None).await.unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(scene.get(&format!("{}/link", url(known))).await.status, 200);
        self.chats().await;
        assert_eq!(scene.history().await.len(), history + 2);
    }

    /// Checks that uploads and downloads work, and rejected ones left nothing: the store contains these files and one
    /// new one.
    async fn is_well(&self, mut files: Vec<Value>) {
        let well = async || {
            let form = Form::new().field("roomId", &self.scene.room).file("well.txt", "text/plain", b"well again");
            Some(self.upload(form).await.0).filter(|answer| answer.status == 201)
        };
        files.push(eventually("an upload works again", RECOVERY_LIMIT, well).await.unwrap().body);
        for file in &files {
            assert_eq!(sha256(&self.scene.get(url(file)).await.bytes), file["sha256"], "{file}");
        }
        self.holds(&files).await;
    }

    /// Checks that these are the user's files, and that the store contains no other new objects.
    async fn holds(&self, files: &[Value]) {
        let id = |file: &Value| file["id"].as_str().unwrap().to_owned();
        let mut expected = files.iter().map(id).collect::<Vec<_>>();
        expected.sort();
        let listed = self.scene.get("/api/files?limit=200").await.expect(200).unwrap();
        let mut listed = listed["items"].as_array().unwrap().iter().map(id).collect::<Vec<_>>();
        listed.sort();
        assert_eq!(listed, expected);
        let only_these = async || {
            let stored = self.objects.all().await.ok()?;
            let new = stored.iter().filter(|name| !self.before.contains(name)).collect::<Vec<_>>();
            (new.len() == expected.len() && new.iter().zip(&expected).all(|(name, id)| name.ends_with(id)))
                .then_some(())
        };
        if let Err(error) = eventually("the store contains exactly the files", RECOVERY_LIMIT, only_these).await {
            panic!("{error}: {:?} instead of {expected:?} and {:?}", self.objects.all().await, self.before);
        }
    }
}

/// One test, because there is one breakable cluster: several tests would wait for it in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_recovers_from_each_fault() {
    let cluster = world::breakable().await;
    client_disconnects_in_mid_body(&cluster).await;
    store_killed_in_mid_body(&cluster).await;
    frozen_store(&cluster).await;
    killed_file_replica_loses_and_duplicates_nothing(&cluster).await;
    chat_continues_without_file_replicas(&cluster).await;
}

async fn frozen_store(cluster: &Cluster) {
    let broken = Broken::new(cluster).await.unwrap();
    let known = broken.scene.file(Some(&broken.scene.room)).await;
    let frozen = Frozen::new(cluster.daemon(S3).unwrap());
    broken.without_store(&known).await;
    drop(frozen);
    broken.is_well(vec![known]).await;
}

async fn store_killed_in_mid_body(cluster: &Cluster) {
    let broken = Broken::new(cluster).await.unwrap();
    let scene = &broken.scene;
    let (known, large) = (scene.file(Some(&scene.room)).await, &vec![1; 20_000_000]);
    let large = scene.one.share(&scene.account, None, "large", large).await.unwrap();
    let mut upload = broken.half_uploaded().await.unwrap();
    let mut download =
        scene.other.request(reqwest::Method::GET, url(&large)).bearer_auth(&scene.account.token).send().await.unwrap();
    assert_eq!(download.status(), 200);

    cluster.kill(S3).await.unwrap();
    let begin = Instant::now();
    // The server may reject the upload before all of it is written.
    let _ = upload.write(&vec![2; 11_000_000]).await;
    is_away(&upload.answer().await.unwrap());
    // A truncated body must not look complete.
    let mut read = 0;
    let broke_off = loop {
        match download.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke_off && read < 20_000_000, "read {read}");
    assert!(begin.elapsed() < 2 * REJECTION_LIMIT, "{:?}", begin.elapsed());

    broken.without_store(&known).await;
    // A file deleted meanwhile is gone for every user, and its content is removed soon after the store is back.
    assert_eq!(scene.delete(url(&known), &scene.account).await.status, 204);
    fails(&scene.get(url(&known)).await, 404, "not_found");
    cluster.start(S3).await.unwrap();
    broken.is_well(vec![large]).await;
}

async fn client_disconnects_in_mid_body(cluster: &Cluster) {
    let broken = Broken::new(cluster).await.unwrap();
    drop(broken.half_uploaded().await.unwrap());
    broken.is_well(vec![]).await;
    assert_eq!(broken.scene.history().await.len(), 1);
}

/// Repeats an upload until it is acknowledged, as a careful client does.
async fn persist(api: &Api, account: &Account, room: &str, text: &str) -> anyhow::Result<Value> {
    let id = unique("persist");
    let begin = Instant::now();
    loop {
        let form = Form::new().field("roomId", room).field("clientMessageId", &id).file(
            "a.txt",
            "text/plain",
            text.as_bytes(),
        );
        match api.upload(account, form).await {
            Ok(answer) if answer.status == 200 || answer.status == 201 => {
                anyhow::ensure!(answer.body["sha256"] == sha256(text.as_bytes()), "{}", answer.body);
                return Ok(answer.body);
            }
            Ok(answer) if answer.status != 503 && answer.status != 504 => {
                anyhow::bail!("{} {}", answer.status, answer.body)
            }
            Ok(_) | Err(_) => anyhow::ensure!(begin.elapsed() < RECOVERY_LIMIT, "{text} is not accepted"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn killed_file_replica_loses_and_duplicates_nothing(cluster: &Cluster) {
    let broken = Broken::new(cluster).await.unwrap();
    let scene = &broken.scene;
    let mut writers = JoinSet::new();
    for n in 0..4 {
        let (api, account, room) =
            (if n % 2 == 0 { &scene.one } else { &scene.other }.clone(), scene.account.clone(), scene.room.clone());
        writers.spawn(async move {
            let mut files = Vec::new();
            for line in 0..15 {
                let file = persist(&api, &account, &room, &format!("{n}: {line}")).await?;
                files.push(file);
            }
            anyhow::Ok(files)
        });
    }
    for (least, n) in [(10, 1), (30, 2)] {
        let shared = async || (scene.history().await.len() >= least).then_some(());
        eventually("load", RECOVERY_LIMIT, shared).await.unwrap();
        cluster.kill((Role::File, n)).await.unwrap();
        broken.chats().await;
        cluster.start((Role::File, n)).await.unwrap();
    }
    let mut files = Vec::new();
    while let Some(written) = writers.join_next().await {
        files.append(&mut written.unwrap().unwrap());
    }
    let history = scene.history().await;
    assert!(history.iter().enumerate().all(|(n, message)| message["seq"] == n + 1));
    let announced = history
        .iter()
        .filter(|message| message["type"] == "file")
        .map(|message| message["files"][0].clone())
        .collect::<Vec<_>>();
    assert_eq!((announced.len(), files.len()), (60, 60));
    assert!(files.iter().all(|file| announced.contains(file)));
    let received = |_: &[Report]| (broken.socket.events("fileUpload").len() >= 60).then_some(());
    broken.socket.until("all files are announced", RECOVERY_LIMIT, received).await.unwrap();
    assert_eq!(
        broken.socket.events("fileUpload").iter().map(|message| message["files"][0].clone()).collect::<Vec<_>>(),
        announced
    );
    broken.is_well(files).await;
}

async fn chat_continues_without_file_replicas(cluster: &Cluster) {
    let broken = Broken::new(cluster).await.unwrap();
    let scene = &broken.scene;
    let (known, roomless) = (scene.file(Some(&scene.room)).await, scene.file(None).await);
    for n in [1, 2] {
        cluster.kill((Role::File, n)).await.unwrap();
    }
    let form = Form::new().field("roomId", &scene.room).file("a.txt", "text/plain", b"some text");
    let (answer, waited) = broken.upload(form).await;
    fails(&answer, 503, "unavailable");
    assert!(waited < REJECTION_LIMIT, "{waited:?}");
    for path in [url(&known), "/api/files", &format!("{}/link", url(&known))] {
        fails(&scene.get(path).await, 503, "unavailable");
    }
    fails(&scene.delete(url(&known), &scene.account).await, 503, "unavailable");
    let named = json!({"roomId": scene.room, "content": "see", "fileIds": [roomless["id"]]});
    fails(&scene.one.post("/api/messages", &scene.account, named.clone()).await.unwrap(), 503, "unavailable");
    broken.chats().await;
    assert_eq!(scene.history().await[0]["files"], json!([known]));
    for n in [1, 2] {
        cluster.start((Role::File, n)).await.unwrap();
    }
    let said = async || {
        Some(scene.one.post("/api/messages", &scene.account, named.clone()).await.ok()?)
            .filter(|answer| answer.status == 201)
    };
    eventually("files can be attached again", RECOVERY_LIMIT, said).await.unwrap();
    broken.is_well(vec![known, roomless]).await;
}

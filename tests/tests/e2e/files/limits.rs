//! The largest file, and the slowest client.

use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use confab_tests::api::{Answer, Api};
use confab_tests::embedded::Embedded;
use confab_tests::form::{Form, content_type, file_headers};
use confab_tests::objects::Objects;
use confab_tests::raw::Http;
use confab_tests::stock::{Stock, Transports, bytes};
use parking_lot::Mutex;
use serde_json::json;

use super::{Scene, fails};

/// The size limit of this file's server.
const MAX_FILE_SIZE: usize = 200_000;

async fn small() -> (Embedded, Scene) {
    let server = Embedded::start(&[("CONFAB_MAX_FILE_SIZE", &MAX_FILE_SIZE.to_string())]).await.unwrap();
    let api = Api::new(server.url());
    let scene = Scene::at(api.clone(), api).await.unwrap();
    (server, scene)
}

fn form(scene: &Scene, length: usize) -> Form {
    Form::new().field("roomId", &scene.room).file("a.txt", "text/plain", &vec![b'x'; length])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_above_the_limit_is_rejected_and_leaves_nothing() {
    let (server, scene) = small().await;
    let largest = || form(&scene, MAX_FILE_SIZE).field("clientMessageId", "largest");
    let file = scene.one.upload(&scene.account, largest()).await.unwrap().expect(201).unwrap();
    assert_eq!(file["size"], MAX_FILE_SIZE);
    assert_eq!(scene.one.upload(&scene.account, largest()).await.unwrap().expect(200).unwrap(), file);
    for over in [1, 100_000, 5_000_000] {
        let answer = scene.one.upload(&scene.account, form(&scene, MAX_FILE_SIZE + over)).await.unwrap();
        fails(&answer, 413, "too_large");
    }

    // A declared length above the limit is rejected before the body is sent.
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: {}\r\n", scene.account.token, content_type());
    let head = Form::new().field("roomId", &scene.room).part(file_headers("a.txt", "text/plain"), b"").into_open_body();
    let begin = async |more: &str| {
        Http::begin(&scene.one.url, "POST /api/files/upload", &format!("{headers}{more}")).await.unwrap()
    };
    let mut promised = begin("Content-Length: 100000000000\r\n").await;
    promised.write(&head[..head.len() - 2]).await.unwrap();
    fails(&promised.answer().await.unwrap(), 413, "too_large");

    // Without a declared length the upload is rejected at the limit, even if it never ends.
    let mut endless = begin("Transfer-Encoding: chunked\r\n").await;
    let piece = [b"2710\r\n".as_slice(), &[b'x'; 10_000], b"\r\n"].concat();
    endless
        .write(&[format!("{:x}\r\n", head.len() - 2).as_bytes(), &head[..head.len() - 2], b"\r\n"].concat())
        .await
        .unwrap();
    for _ in 0..MAX_FILE_SIZE / 10_000 + 1 {
        endless.write(&piece).await.unwrap();
    }
    fails(&endless.answer().await.unwrap(), 413, "too_large");

    // The limit is the same over a socket.
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&scene.one.url, &scene.account.token, Transports::WebSocket).await.unwrap();
    let upload = |length: usize| json!({"roomId": scene.room, "name": "b.txt", "data": bytes(&vec![b'y'; length])});
    let refused = socket.emit("fileUpload", upload(MAX_FILE_SIZE + 1)).await.unwrap();
    assert_eq!(
        (&refused["ok"], &refused["error"]["code"], &refused["error"]["status"]),
        (&json!(false), &json!("too_large"), &json!(413))
    );
    assert_eq!(socket.emit("fileUpload", upload(MAX_FILE_SIZE)).await.unwrap()["ok"], true);

    // Two files, and none of the rejected or repeated uploads.
    assert_eq!(scene.history().await.len(), 2);
    assert_eq!(Objects::of(server.daemon()).unwrap().all().await.unwrap().len(), 2);
}

/// The responses to four clients that send next to nothing, and how long they took. Their half minute passes while
/// other tests run.
static GIVEN_UP: LazyLock<Mutex<Option<JoinHandle<GivenUp>>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Mutex::new(Some(std::thread::spawn(move || runtime.block_on(trickle()))))
});

type GivenUp = anyhow::Result<Vec<(Answer, Duration)>>;

/// Starts these clients, unless they run already.
pub fn begin_to_trickle() {
    LazyLock::force(&GIVEN_UP);
}

async fn trickle() -> GivenUp {
    let server = Embedded::start(&[]).await?;
    let scene = Scene::at(Api::new(server.url()), Api::new(server.url())).await?;
    let head = Form::new()
        .field("roomId", &scene.room)
        .part(file_headers("a.txt", "text/plain"), b"some text")
        .into_open_body();
    let client = async |sent: usize, every: Duration| {
        let headers = format!("Authorization: Bearer {}\r\nContent-Type: {}\r\n", scene.account.token, content_type());
        let mut slow =
            Http::begin(&scene.one.url, "POST /api/files/upload", &format!("{headers}Content-Length: 100000\r\n"))
                .await?;
        slow.write(&head[..sent]).await?;
        let begin = Instant::now();
        while let Err(_elapsed) = tokio::time::timeout(every, slow.answered()).await {
            slow.write(b"x").await?;
        }
        let waited = begin.elapsed();
        anyhow::Ok((slow.answer().await?, waited))
    };
    let (second, never) = (Duration::from_secs(1), Duration::from_secs(60));
    let answers =
        tokio::try_join!(client(head.len(), second), client(head.len(), never), client(10, second), client(0, never))?;
    let left = Objects::of(server.daemon())?.all().await?;
    anyhow::ensure!(left.is_empty() && scene.history().await.is_empty(), "leftovers: {left:?}");
    Ok(vec![answers.0, answers.1, answers.2, answers.3])
}

#[test]
fn trickling_client_times_out() {
    let clients = GIVEN_UP.lock().take().unwrap();
    for (answer, waited) in clients.join().expect("no panic").unwrap() {
        fails(&answer, 408, "timeout");
        assert!((25.0..90.0).contains(&waited.as_secs_f32()), "{waited:?}");
    }
}

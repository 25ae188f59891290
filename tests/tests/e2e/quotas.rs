//! The quotas of a user: rooms, files and bytes.

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::form::{Form, content_type, file_headers};
use confab_tests::plan::Role;
use confab_tests::raw::Http;
use confab_tests::server_keys;
use confab_tests::stock::{Stock, Transports, bytes};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world;

const SETTINGS: [(&str, &str); 3] =
    [("CONFAB_MAX_ROOMS_PER_USER", "3"), ("CONFAB_MAX_FILES_PER_USER", "3"), ("CONFAB_MAX_BYTES_PER_USER", "100000")];

/// Two ends of a server with small quotas, which may be the same, and a server key with all scopes.
struct Scene {
    one: Api,
    other: Api,
    key: Account,
}

#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
}

async fn create(api: &Api, who: &Account) -> Answer {
    api.post("/api/rooms", who, json!({"name": unique("room")})).await.unwrap()
}

fn id(room: &Answer) -> &str {
    room.body["id"].as_str().unwrap()
}

/// Sends this request a number of times at once, at both ends. Returns the answers with their numbers.
async fn at_once<F>(scene: &Scene, count: usize, send: impl Fn(Api, usize) -> F) -> Vec<(usize, Answer)>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut sending = JoinSet::new();
    for number in 0..count {
        let end = if number % 2 == 0 { &scene.one } else { &scene.other };
        let answer = send(end.clone(), number);
        sending.spawn(async move { (number, answer.await) });
    }
    sending.join_all().await
}

/// A form with a file of this many bytes.
fn form(size: usize) -> Form {
    Form::new().file("a.txt", "text/plain", &vec![b'x'; size])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_hold_on_the_embedded_server() {
    let server = Embedded::start(&SETTINGS).await.unwrap();
    let api = Api::new(server.url());
    let key = server_keys::of_embedded(&server, server_keys::ALL).await.unwrap();
    let scene = Scene { one: api.clone(), other: api, key };
    rooms_of_a_user(&scene).await;
    files_of_a_user(&scene).await;
    let seen = Exposition::scrape(server.admin_port()).await.unwrap();
    for limit in ["rooms_per_user", "files_per_user", "bytes_per_user"] {
        assert!(seen.value(&format!("confab_limits_total{{limit=\"{limit}\"}}")) > Some(0.0), "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_hold_in_a_cluster() {
    let cluster = Cluster::scratch(2, 2, &SETTINGS).await.unwrap();
    let [one, other] = <[Api; 2]>::try_from(world::gateways(&cluster)).unwrap();
    let key = server_keys::of_cluster(&cluster, server_keys::ALL).await.unwrap();
    assert_eq!(cluster.plan.url((Role::Gateway, 1)), one.url);
    let scene = Scene { one, other, key };
    rooms_of_a_user(&scene).await;
    files_of_a_user(&scene).await;
}

async fn rooms_of_a_user(scene: &Scene) {
    let Scene { one, other, key } = scene;
    let (ada, bob) = (one.signup().await.unwrap(), one.signup().await.unwrap());
    let first = create(one, &ada).await;
    create(other, &ada).await.expect(201).unwrap();
    // One of 50 concurrent requests gets the last place.
    let creator = ada.clone();
    let create_one = move |end: Api, _| {
        let creator = creator.clone();
        async move { create(&end, &creator).await }
    };
    let answers = at_once(scene, 50, create_one).await;
    assert_eq!(answers.iter().filter(|(_, answer)| answer.status == 201).count(), 1);
    for (_, answer) in answers.iter().filter(|(_, answer)| answer.status != 201) {
        fails(answer, 409, "conflict");
        assert_eq!(answer.body["detail"], "the user is in 3 rooms, the maximum for one user");
    }
    let private = json!({"name": unique("room"), "visibility": "private"});
    fails(&one.post("/api/rooms", &ada, private).await.unwrap(), 409, "conflict");

    let room = create(one, &bob).await;
    let members = format!("/api/rooms/{}/members", id(&room));
    let put = async |who: &Account, user: &str| {
        one.call(Method::PUT, &format!("{members}/{user}"), Some(who), None).await.unwrap()
    };
    fails(&put(&ada, "me").await, 409, "conflict");
    fails(&put(&bob, &ada.id).await, 409, "conflict");
    fails(&put(key, &ada.id).await, 409, "conflict");
    let own = format!("/api/rooms/{}", id(&first));
    assert_eq!(other.call(Method::DELETE, &own, Some(&ada), None).await.unwrap().status, 204);
    assert_eq!(put(key, &ada.id).await.status, 201);
    fails(&create(other, &ada).await, 409, "conflict");
    assert_eq!(put(&ada, "me").await.status, 200, "a repeat changes nothing");

    // Other users can take only 1 of the 3 places.
    let cleo = other.signup().await.unwrap();
    assert_eq!(put(&bob, &cleo.id).await.status, 201);
    let second = format!("/api/rooms/{}/members", id(&create(other, &bob).await));
    let put = async |who: &Account, user: &str| {
        other.call(Method::PUT, &format!("{second}/{user}"), Some(who), None).await.unwrap()
    };
    fails(&put(&bob, &cleo.id).await, 409, "conflict");
    assert_eq!(put(&cleo, "me").await.status, 201);
    assert_eq!(create(one, &cleo).await.status, 201);
}

async fn files_of_a_user(scene: &Scene) {
    let Scene { one, other, .. } = scene;
    let (ada, bob) = (one.signup().await.unwrap(), one.signup().await.unwrap());
    let room = create(one, &ada).await;
    let first = one.upload(&ada, form(60_000)).await.unwrap().expect(201).unwrap();

    // The declared length shows that it is too much: the answer precedes the content. Its least size is the declared
    // length without 64 KiB for the other fields of the form.
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: {}\r\n", ada.token, content_type());
    let head = Form::new().part(file_headers("a.txt", "text/plain"), b"").into_open_body();
    let declared = format!("{headers}Content-Length: 50000000\r\n");
    let mut promised = Http::begin(&one.url, "POST /api/files/upload", &declared).await.unwrap();
    promised.write(&head[..head.len() - 2]).await.unwrap();
    fails(&promised.answer().await.unwrap(), 413, "too_large");
    let over = other.upload(&ada, form(40_001)).await.unwrap();
    fails(&over, 413, "too_large");
    let detail = "the files of a user may have at most 100000 bytes together; delete some first";
    assert_eq!(over.body["detail"], detail);

    // The same over a socket.
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&other.url, &ada.token, Transports::WebSocket).await.unwrap();
    let share = |length: usize| json!({"roomId": id(&room), "name": "b.txt", "data": bytes(&vec![b'y'; length])});
    let refused = socket.emit("fileUpload", share(40_001)).await.unwrap();
    let error = |answer: &Value| (answer["error"]["code"].clone(), answer["error"]["status"].clone());
    assert_eq!(error(&refused), (json!("too_large"), json!(413)));
    assert_eq!(socket.emit("fileUpload", share(10_000)).await.unwrap()["ok"], true);

    // One of concurrent uploads gets the last place, and its repeat gets the same file.
    let uploader = ada.clone();
    let upload = move |end: Api, number: usize| {
        let uploader = uploader.clone();
        let form = form(10).field("clientMessageId", &format!("upload {number}"));
        async move { end.upload(&uploader, form).await.unwrap() }
    };
    let answers = at_once(scene, 10, &upload).await;
    let kept = answers.iter().filter(|(_, answer)| answer.status == 201).collect::<Vec<_>>();
    assert_eq!(kept.len(), 1);
    for (_, answer) in answers.iter().filter(|(_, answer)| answer.status != 201) {
        fails(answer, 413, "too_large");
        assert_eq!(answer.body["detail"], "a user may store at most 3 files; delete some first");
    }
    let (number, first_answer) = kept[0];
    let repeat = upload(other.clone(), *number).await.expect(200).unwrap();
    assert_eq!(repeat["id"], first_answer.body["id"]);
    fails(&one.upload(&ada, form(0)).await.unwrap(), 413, "too_large");

    // Another user has another quota, and a deleted file frees its place and its bytes.
    one.upload(&bob, form(100_000)).await.unwrap().expect(201).unwrap();
    let path = format!("/api/files/{}", first["id"].as_str().unwrap());
    assert_eq!(other.call(Method::DELETE, &path, Some(&ada), None).await.unwrap().status, 204);
    one.upload(&ada, form(60_000)).await.unwrap().expect(201).unwrap();
    fails(&other.upload(&ada, form(1)).await.unwrap(), 413, "too_large");
}

//! Messages with attached files.

use super::{Scene, fails, url};
use confab_tests::api::{Answer, repeated, unique};
use confab_tests::raw::PACKET_LIMIT;
use confab_tests::stock::{Report, Stock, Transports};
use serde_json::{Value, json};

everywhere!(
    files_without_a_room_move_to_the_room,
    files_are_attached_by_socket,
    invalid_attachments_are_rejected,
    refused_together,
    repeat_returns_the_first_message
);

impl Scene {
    async fn say(&self, content: &str, files: &[&Value]) -> Answer {
        let ids = files.iter().map(|file| &file["id"]).collect::<Vec<_>>();
        self.say_ids(content, json!(ids)).await
    }

    async fn say_ids(&self, content: &str, ids: Value) -> Answer {
        let message = json!({"roomId": self.room, "content": content, "fileIds": ids});
        self.one.post("/api/messages", &self.account, message).await.unwrap()
    }

    /// Returns the file as it is after it was attached to the room.
    fn in_room(&self, file: &Value) -> Value {
        let mut file = file.clone();
        file["roomId"] = json!(self.room);
        file
    }
}

async fn files_without_a_room_move_to_the_room(scene: Scene) {
    let guest = scene.one.signup().await.unwrap();
    let (first, second) = (scene.file(None).await, scene.file(None).await);
    fails(&scene.other.get(url(&first), &guest).await.unwrap(), 404, "not_found");
    // In the order of `fileIds`, independent of the order of the uploads.
    let message = scene.say("see", &[&second, &first]).await.expect(201).unwrap();
    assert_eq!((&message["type"], &message["content"]), (&json!("message"), &json!("see")));
    assert_eq!(message["files"], json!([scene.in_room(&second), scene.in_room(&first)]));
    assert_eq!(scene.history().await, [message]);
    for file in [&first, &second] {
        assert_eq!(scene.other.get(url(file), &guest).await.unwrap().bytes, scene.get(url(file)).await.bytes);
    }
    let listed =
        scene.other.get(&format!("/api/files?roomId={}", scene.room), &guest).await.unwrap().expect(200).unwrap();
    assert_eq!(listed["items"], json!([scene.in_room(&second), scene.in_room(&first)]));
    // A file of the room may be attached there again, and a message may consist of files only: at most ten.
    scene.say("", &[&first]).await.expect(201).unwrap();
    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(scene.file(None).await);
    }
    let message = scene.say("", &ten.iter().collect::<Vec<_>>()).await.expect(201).unwrap();
    assert_eq!(message["files"].as_array().unwrap().len(), 10);
}

async fn files_are_attached_by_socket(scene: Scene) {
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&scene.one.url, &scene.account.token, Transports::WebSocket).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let files = [scene.file(None).await, scene.file(Some(&scene.room)).await];
    // Sends before and after this send keep their order, although it calls the file service first.
    let message = |content: &str, ids: Value| json!({"roomId": scene.room, "content": content, "fileIds": ids});
    let sends = [("before", json!([])), ("", json!([files[0]["id"], files[1]["id"]])), ("after", json!(null))];
    let sends = sends.map(|(content, ids)| socket.emit_later("message", vec![message(content, ids)]));
    let mut acks = Vec::new();
    for send in sends {
        acks.push(send.await.unwrap().swap_remove(0));
    }
    assert!(acks.iter().all(|ack| ack["ok"] == true), "{acks:?}");
    assert_eq!(acks[1]["message"]["files"], json!([scene.in_room(&files[0]), files[1]]));
    let history = scene.history().await;
    assert_eq!(acks.iter().map(|ack| ack["message"].clone()).collect::<Vec<_>>(), history[1..]);
    let received = |_: &[Report]| (socket.events("message") == history[1..]).then_some(());
    socket.until("the messages", PACKET_LIMIT, received).await.unwrap();

    let unknown = socket.emit("message", message("x", json!([uuid::Uuid::now_v7()]))).await.unwrap();
    assert_eq!((&unknown["ok"], &unknown["error"]["code"]), (&json!(false), &json!("not_found")));
}

async fn invalid_attachments_are_rejected(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    let theirs = scene.one.share(&stranger, None, "theirs.txt", b"theirs").await.unwrap();
    let elsewhere = scene.one.room(&scene.account).await.unwrap();
    let elsewhere = scene.file(Some(&elsewhere)).await;
    let [gone, gone_here] = [scene.file(None).await, scene.file(Some(&scene.room)).await];
    for file in [&gone, &gone_here] {
        assert_eq!(scene.delete(url(file), &scene.account).await.status, 204);
    }
    let before = scene.history().await.len();
    for (file, status, code) in [
        (&theirs, 404, "not_found"),
        (&gone, 404, "not_found"),
        (&gone_here, 404, "not_found"),
        (&elsewhere, 409, "conflict"),
    ] {
        fails(&scene.say("x", &[file]).await, status, code);
    }
    fails(&scene.say_ids("x", json!([uuid::Uuid::now_v7()])).await, 404, "not_found");

    let own = scene.file(None).await;
    let eleven = (0..11).map(|_| uuid::Uuid::now_v7()).collect::<Vec<_>>();
    for ids in [
        json!(eleven),
        json!(["nonsense"]),
        json!([7]),
        json!("x"),
        json!({}),
        json!([""]),
        json!([null]),
        json!([own["id"], own["id"]]),
    ] {
        fails(&scene.say_ids("x", ids).await, 400, "invalid_request");
    }
    for empty in [json!([]), json!(null)] {
        fails(&scene.say_ids("", empty).await, 400, "invalid_request");
    }
    assert_eq!(scene.history().await.len(), before);
    // Another user may attach a file of the room, although that user did not upload it.
    let shared = scene.file(Some(&scene.room)).await;
    let message = json!({"roomId": scene.room, "content": "nice", "fileIds": [shared["id"]]});
    let said = scene.other.post("/api/messages", &stranger, message).await.unwrap().expect(201).unwrap();
    assert_eq!(said["files"], json!([shared]));
    assert_eq!(scene.get(url(&own)).await.status, 200);
}

async fn refused_together(scene: Scene) {
    let (own, gone) = (scene.file(None).await, scene.file(None).await);
    assert_eq!(scene.delete(url(&gone), &scene.account).await.status, 204);
    fails(&scene.say("x", &[&own, &gone]).await, 404, "not_found");
    // The file that could have been attached is unchanged.
    let listed = scene.get("/api/files").await.expect(200).unwrap();
    assert_eq!(listed["items"], json!([own]));
    let stranger = scene.one.signup().await.unwrap();
    fails(&scene.other.get(url(&own), &stranger).await.unwrap(), 404, "not_found");
    // A send to a missing room is rejected for that reason.
    let message = json!({"roomId": uuid::Uuid::now_v7(), "content": "x", "fileIds": [own["id"]]});
    fails(&scene.one.post("/api/messages", &scene.account, message).await.unwrap(), 404, "not_found");
    assert_eq!(scene.get("/api/files").await.expect(200).unwrap()["items"], json!([own]));
}

async fn repeat_returns_the_first_message(scene: Scene) {
    let (file, another, id) = (scene.file(None).await, scene.file(None).await, unique("attach"));
    let message =
        |file: &Value| json!({"roomId": scene.room, "content": "", "fileIds": [file["id"]], "clientMessageId": id});
    let post = async |file: &Value| scene.other.post("/api/messages", &scene.account, message(file)).await.unwrap();
    let first = post(&file).await.expect(201).unwrap();
    assert_eq!(post(&file).await.expect(200).unwrap(), repeated(&first));
    assert_eq!(post(&another).await.expect(200).unwrap(), repeated(&first));
    assert_eq!(scene.history().await, std::slice::from_ref(&first));
    // Also when the file has been deleted since.
    assert_eq!(scene.delete(url(&file), &scene.account).await.status, 204);
    let again = post(&file).await.expect(200).unwrap();
    assert_eq!((&again["id"], &again["seq"]), (&first["id"], &first["seq"]));
}

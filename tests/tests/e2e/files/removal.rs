//! Deleted files, alone or with their room: their content is removed, and messages show the deletion.

use std::time::Duration;

use confab_tests::api::Account;
use confab_tests::objects::Objects;
use confab_tests::plan::Role;
use confab_tests::stock::{Stock, Transports};
use confab_tests::wait::eventually;
use serde_json::{Value, json};

use super::{Scene, fails, url};
use crate::world;

everywhere!(deleted_file_is_shown_as_deleted, who_may_delete, repeat_of_a_deleted_upload);

const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

fn deleted(file: &Value) -> Value {
    json!({"id": file["id"], "name": file["name"], "deleted": true})
}

async fn deleted_file_is_shown_as_deleted(scene: Scene) {
    let (gone, kept, attached) =
        (scene.file(Some(&scene.room)).await, scene.file(Some(&scene.room)).await, scene.file(None).await);
    let message = json!({"roomId": scene.room, "content": "see", "fileIds": [attached["id"], gone["id"], kept["id"]]});
    scene.one.post("/api/messages", &scene.account, message).await.unwrap().expect(201).unwrap();
    let before = scene.history().await;
    for file in [&gone, &attached] {
        assert_eq!(scene.delete(url(file), &scene.account).await.status, 204);
        fails(&scene.get(url(file)).await, 404, "not_found");
        fails(&scene.delete(url(file), &scene.account).await, 404, "not_found");
    }
    let listed = scene.get(&format!("/api/files?roomId={}", scene.room)).await.expect(200).unwrap();
    assert_eq!(listed["items"], json!([kept]));

    // The rest of the messages is unchanged.
    let mut after = before;
    after[0]["files"] = json!([deleted(&gone)]);
    after[2]["files"] = json!([deleted(&attached), deleted(&gone), kept]);
    let shown = async || (scene.history().await == after).then_some(());
    eventually("the messages show the deletion", REMOVAL_LIMIT, shown).await.unwrap();
    let room = scene.get(&format!("/api/rooms/{}", scene.room)).await.expect(200).unwrap();
    assert_eq!(room["messages"]["items"], json!(after));
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&scene.other.url, &scene.account.token, Transports::WebSocket).await.unwrap();
    for argument in [json!({"roomId": scene.room, "last": 3}), json!({"roomId": scene.room, "after": 0})] {
        let joined = socket.emit("joinRoom", argument).await.unwrap();
        assert_eq!(joined["messages"], json!(after));
    }
}

async fn who_may_delete(scene: Scene) {
    let guest = scene.one.signup().await.unwrap();
    let share = async |who: &Account| scene.one.share(who, Some(&scene.room), "theirs.txt", b"theirs").await.unwrap();
    // The uploader and the owner of the room may delete it; other users may not.
    let (theirs, theirs_too, ours) = (share(&guest).await, share(&guest).await, share(&scene.account).await);
    assert_eq!(scene.delete(url(&theirs), &guest).await.status, 204);
    assert_eq!(scene.delete(url(&theirs_too), &scene.account).await.status, 204);
    fails(&scene.delete(url(&ours), &guest).await, 403, "forbidden");
}

async fn repeat_of_a_deleted_upload(scene: Scene) {
    use confab_tests::form::Form;
    let form =
        || Form::new().field("roomId", &scene.room).field("clientMessageId", "once").file("a.txt", "text/plain", b"a");
    let file = scene.one.upload(&scene.account, form()).await.unwrap().expect(201).unwrap();
    assert_eq!(scene.delete(url(&file), &scene.account).await.status, 204);
    // The room has had its event, and its log keeps that id forever; the file does not reappear under another id.
    let again = scene.other.upload(&scene.account, form()).await.unwrap();
    assert!(again.status != 201 && again.status < 500, "{} {}", again.status, again.body);
    assert_eq!(scene.history().await.len(), 1);
    let listed = scene.get(&format!("/api/files?roomId={}", scene.room)).await.expect(200).unwrap();
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_deleted_with_file_and_room_embedded() {
    let server = world::embedded().await;
    bytes_go(Scene::embedded().await.unwrap(), &Objects::of(server.daemon()).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_deleted_with_file_and_room_in_the_cluster() {
    let cluster = world::cluster().await;
    let objects = Objects::of(&cluster.daemon((Role::File, 1)).unwrap()).unwrap();
    bytes_go(Scene::cluster().await.unwrap(), &objects).await.unwrap();
}

async fn bytes_go(scene: Scene, objects: &Objects) -> anyhow::Result<()> {
    let [alone, roomless, one, two] = [
        scene.file(Some(&scene.room)).await,
        scene.file(None).await,
        scene.file(Some(&scene.room)).await,
        scene.file(None).await,
    ];
    let message = json!({"roomId": scene.room, "content": "", "fileIds": [two["id"]]});
    scene.one.post("/api/messages", &scene.account, message).await?.expect(201)?;
    for file in [&alone, &roomless, &one, &two] {
        assert!(objects.has(file).await?, "{file}");
    }
    for file in [&alone, &roomless] {
        assert_eq!(scene.delete(url(file), &scene.account).await.status, 204);
    }
    gone(objects, &[&alone, &roomless]).await?;

    assert_eq!(scene.delete(&format!("/api/rooms/{}", scene.room), &scene.account).await.status, 204);
    for path in [url(&one), url(&two), &format!("/api/files?roomId={}", scene.room)] {
        // Permissions are cached for less than one second.
        let unknown = async || (scene.get(path).await.status == 404).then_some(());
        eventually("the room and its files are unknown", REMOVAL_LIMIT, unknown).await?;
    }
    gone(objects, &[&one, &two]).await
}

async fn gone(objects: &Objects, files: &[&Value]) -> anyhow::Result<()> {
    for file in files {
        let removed = async || (!objects.has(file).await.unwrap_or(true)).then_some(());
        eventually("the content is removed", Duration::from_secs(30), removed).await?;
    }
    Ok(())
}

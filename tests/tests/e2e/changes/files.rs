//! Files are deleted with the last message that has them.

use std::time::Duration;

use confab_tests::plan::Role;
use confab_tests::wait::eventually;

use super::*;

/// How long after the deletion of its last message a file may still be there.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// The same while the file service starts.
const RECOVERY_LIMIT: Duration = Duration::from_secs(40);

at_both_ends!(files_are_deleted_with_their_last_message, a_shared_file_is_deleted_with_its_message);

impl Scene {
    /// Uploads a file of the author, to the room or without a room.
    async fn file(&self, room: Option<&str>) -> Value {
        self.one.share(&self.author, room, "plain.txt", unique("text").as_bytes()).await.unwrap()
    }

    /// Sends a message of the author with files; returns its seq.
    async fn attach(&self, files: &[&Value]) -> u64 {
        let ids = files.iter().map(|file| &file["id"]).collect::<Vec<_>>();
        let body = json!({"content": "see", "fileIds": ids});
        let sent = self.one.post(&self.path(""), &self.author, body).await.unwrap();
        sent.expect(201).unwrap()["seq"].as_u64().unwrap()
    }

    async fn status(&self, file: &Value) -> u16 {
        self.other.get(file["url"].as_str().unwrap(), &self.reader).await.unwrap().status
    }

    /// Returns the path of a link to a file.
    async fn link(&self, file: &Value) -> String {
        let path = format!("{}/link", file["url"].as_str().unwrap());
        let link = self.one.get(&path, &self.reader).await.unwrap().expect(200).unwrap();
        link["url"].as_str().unwrap().to_owned()
    }

    async fn opens(&self, link: &str) -> u16 {
        self.other.call(Method::GET, link, None, None).await.unwrap().status
    }

    /// Waits until a file and its link are gone.
    async fn is_dropped(&self, file: &Value, link: &str, limit: Duration) {
        let gone = async || (self.status(file).await == 404).then_some(());
        eventually("the file is deleted", limit, gone).await.unwrap();
        // Without a token, what the bearer of a link may not see needs one.
        assert_eq!(self.opens(link).await, 401);
        let listed = self.other.get(&format!("/api/files?roomId={}", self.room), &self.reader).await.unwrap();
        let listed = listed.expect(200).unwrap();
        assert!(listed["items"].as_array().unwrap().iter().all(|item| item["id"] != file["id"]), "{listed}");
    }
}

async fn files_are_deleted_with_their_last_message(scene: Scene) {
    let (alone, both) = (scene.file(None).await, scene.file(None).await);
    let first = scene.attach(&[&alone, &both]).await;
    let second = scene.attach(&[&both]).await;
    let links = [scene.link(&alone).await, scene.link(&both).await];
    assert_eq!((scene.opens(&links[0]).await, scene.opens(&links[1]).await), (200, 200));

    scene.delete(&scene.author, first).await.expect(200).unwrap();
    scene.is_dropped(&alone, &links[0], DROP_LIMIT).await;
    assert_eq!((scene.status(&both).await, scene.opens(&links[1]).await), (200, 200));
    let history = scene.history().await;
    let shown = history.iter().find(|message| message["seq"] == second).unwrap();
    assert_eq!((&shown["files"][0]["id"], &shown["files"][0]["deleted"]), (&both["id"], &Value::Null), "{shown}");

    scene.delete(&scene.owner, second).await.expect(200).unwrap();
    scene.is_dropped(&both, &links[1], DROP_LIMIT).await;
}

async fn a_shared_file_is_deleted_with_its_message(scene: Scene) {
    let (alone, attached) = (scene.file(Some(&scene.room)).await, scene.file(Some(&scene.room)).await);
    let message = scene.attach(&[&attached]).await;
    let links = [scene.link(&alone).await, scene.link(&attached).await];
    let shares = scene.history().await.into_iter().filter(|message| message["type"] == "file").collect::<Vec<_>>();
    let share = |file: &Value| {
        let of_file = shares.iter().find(|message| message["files"][0]["id"] == file["id"]);
        of_file.unwrap()["seq"].as_u64().unwrap()
    };
    for file in [&attached, &alone] {
        scene.delete(&scene.author, share(file)).await.expect(200).unwrap();
    }
    scene.is_dropped(&alone, &links[0], DROP_LIMIT).await;
    assert_eq!(scene.status(&attached).await, 200, "a message still has it");
    scene.delete(&scene.author, message).await.expect(200).unwrap();
    scene.is_dropped(&attached, &links[1], DROP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_deleted_after_the_file_service_is_back() {
    let cluster = world::breakable().await;
    let [one, other] = <[Api; 2]>::try_from(world::gateways(&cluster)).map_err(|_| "two gateways").unwrap();
    // No part of this test uses the key.
    let key = one.signup().await.unwrap();
    let scene = Scene::at(one, other, key).await.unwrap();
    let file = scene.file(None).await;
    let message = scene.attach(&[&file]).await;
    let link = scene.link(&file).await;
    for n in [1, 2] {
        cluster.stop((Role::File, n)).await.unwrap();
    }
    scene.delete(&scene.author, message).await.expect(200).unwrap();
    for n in [1, 2] {
        cluster.start((Role::File, n)).await.unwrap();
    }
    scene.is_dropped(&file, &link, RECOVERY_LIMIT).await;
}

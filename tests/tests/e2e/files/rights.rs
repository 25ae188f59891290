//! Which users may read which files, and which lists contain them.

use confab_tests::api::{Api, unique};
use confab_tests::embedded::Embedded;
use reqwest::Method;
use serde_json::Value;

use super::{Scene, fails, url};
use crate::world;

everywhere!(file_without_a_room_is_private, file_of_a_room_is_for_its_readers, lists_page_newest_first, unknown_files);

async fn file_without_a_room_is_private(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    let file = scene.file(None).await;
    assert_eq!(scene.get(url(&file)).await.status, 200);
    for method in [Method::GET, Method::DELETE] {
        fails(&scene.other.call(method, url(&file), Some(&stranger), None).await.unwrap(), 404, "not_found");
    }
    assert_eq!(scene.other.call(Method::HEAD, url(&file), Some(&stranger), None).await.unwrap().status, 404);
    let listed = scene.other.get("/api/files", &stranger).await.unwrap().expect(200).unwrap();
    assert_eq!(listed["items"], serde_json::json!([]));
    fails(&scene.other.call(Method::GET, url(&file), None, None).await.unwrap(), 401, "unauthorized");
    let bad = scene.other.request(Method::GET, url(&file)).bearer_auth("nonsense");
    fails(&scene.other.send(bad).await.unwrap(), 401, "unauthorized");
    let by_query = format!("{}?token={}", url(&file), scene.account.token);
    fails(&scene.other.call(Method::GET, &by_query, None, None).await.unwrap(), 401, "unauthorized");
}

async fn file_of_a_room_is_for_its_readers(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    let file = scene.file(Some(&scene.room)).await;
    assert_eq!(scene.other.get(url(&file), &stranger).await.unwrap().bytes, scene.get(url(&file)).await.bytes);
    let listed =
        scene.other.get(&format!("/api/files?roomId={}", scene.room), &stranger).await.unwrap().expect(200).unwrap();
    assert_eq!(listed["items"], serde_json::json!([file]));
    // Permission to read does not permit deletion.
    fails(&scene.delete(url(&file), &stranger).await, 403, "forbidden");
    assert_eq!(scene.get(url(&file)).await.status, 200);
}

async fn lists_page_newest_first(scene: Scene) {
    let mut files = Vec::new();
    for n in 0..7 {
        files.push(scene.file((n % 2 == 0).then_some(&*scene.room)).await);
    }
    files.reverse();
    let in_room = files.iter().filter(|file| file["roomId"] == *scene.room).cloned().collect::<Vec<_>>();
    for (of, expected) in [(String::new(), &files), (format!("&roomId={}", scene.room), &in_room)] {
        for limit in [1, 3, 200] {
            let mut listed = Vec::new();
            let mut path = format!("/api/files?limit={limit}{of}");
            loop {
                let page = scene.get(&path).await.expect(200).unwrap();
                let items = page["items"].as_array().unwrap();
                assert!(!items.is_empty() && items.len() <= limit);
                listed.extend(items.iter().cloned());
                let Some(cursor) = page["nextCursor"].as_str() else { break };
                path = format!("/api/files?limit={limit}{of}&cursor={cursor}");
            }
            assert_eq!(listed, *expected);
        }
    }
    // A cursor is valid for its own list only.
    let cursor = scene.get("/api/files?limit=1").await.expect(200).unwrap()["nextCursor"].as_str().unwrap().to_owned();
    fails(&scene.get(&format!("/api/files?roomId={}&cursor={cursor}", scene.room)).await, 400, "invalid_request");
    for query in ["limit=0", "limit=201", "limit=x", "cursor=nonsense", "cursor=%00", "roomId=nonsense"] {
        fails(&scene.get(&format!("/api/files?{query}")).await, 400, "invalid_request");
    }
    fails(&scene.get(&format!("/api/files?roomId={}", uuid::Uuid::now_v7())).await, 404, "not_found");
}

async fn unknown_files(scene: Scene) {
    for id in [
        uuid::Uuid::now_v7().to_string(),
        uuid::Uuid::nil().to_string(),
        "nonsense".into(),
        "%00".into(),
        "x".repeat(5000),
    ] {
        let path = format!("/api/files/{id}");
        fails(&scene.get(&path).await, 404, "not_found");
        fails(&scene.get(&format!("{path}/link")).await, 404, "not_found");
        fails(&scene.delete(&path, &scene.account).await, 404, "not_found");
    }
    fails(&scene.one.post("/api/files", &scene.account, Value::Null).await.unwrap(), 405, "method_not_allowed");
}

#[tokio::test]
async fn anonymous_reading_is_a_setting() {
    let open = Embedded::start(&[("CONFAB_ANONYMOUS_READ", "true")]).await.unwrap();
    for (url, may_read) in [(open.url(), true), (world::embedded().await.url(), false)] {
        let scene = Scene::at(Api::new(&url), Api::new(&url)).await.unwrap();
        let (shared, own) = (scene.file(Some(&scene.room)).await, scene.file(None).await);
        let api = &scene.one;
        let link = format!("{}/link", super::url(&shared));
        for path in [super::url(&shared), &format!("/api/files?roomId={}", scene.room), &link] {
            let answer = api.call(Method::GET, path, None, None).await.unwrap();
            assert_eq!(answer.status, if may_read { 200 } else { 401 }, "{path}: {}", answer.body);
        }
        // A user's own files are private; the answer does not reveal whether such a file exists.
        let refused = api.call(Method::GET, super::url(&own), None, None).await.unwrap();
        assert_eq!(refused.status, if may_read { 404 } else { 401 });
        fails(&api.call(Method::GET, "/api/files", None, None).await.unwrap(), 401, "unauthorized");
        fails(&api.call(Method::DELETE, super::url(&shared), None, None).await.unwrap(), 401, "unauthorized");
        let bad = api.request(Method::GET, super::url(&shared)).bearer_auth("nonsense");
        fails(&api.send(bad).await.unwrap(), 401, "unauthorized");
        let form = confab_tests::form::Form::new().field("roomId", &scene.room).file(&unique("x"), "text/plain", b"x");
        let upload =
            api.request(Method::POST, "/api/files/upload").header("content-type", confab_tests::form::content_type());
        fails(&api.send(upload.body(form.into_body())).await.unwrap(), 401, "unauthorized");
    }
}

//! Links: they need no header, work for one file, and end with it.

use confab_tests::api::{Account, Answer};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;

use super::{Scene, fails, url};

everywhere!(link_needs_no_token, altered_link_is_rejected, link_ends_with_its_file, user_who_may_not_read_gets_no_link);

impl Scene {
    async fn link(&self, file: &Value, who: &Account) -> Answer {
        self.one.get(&format!("{}/link", url(file)), who).await.unwrap()
    }

    /// Sends an anonymous request to the other end.
    async fn open(&self, method: Method, path: &str) -> Answer {
        self.other.call(method, path, None, None).await.unwrap()
    }
}

async fn link_needs_no_token(scene: Scene) {
    for room in [None, Some(&*scene.room)] {
        let file = scene.file(room).await;
        let link = scene.link(&file, &scene.account).await.expect(200).unwrap();
        assert_eq!(link.as_object().unwrap().len(), 2, "{link}");
        let path = link["url"].as_str().unwrap();
        assert!(path.starts_with(&format!("{}?", url(&file))), "{path}");
        let left = link["expiresAt"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .duration_since(jiff::Timestamp::now());
        assert!((290..=300).contains(&left.as_secs()), "{left}");

        let got = scene.open(Method::GET, path).await;
        assert_eq!((got.status, got.bytes), (200, scene.get(url(&file)).await.bytes));
        assert_eq!(scene.open(Method::HEAD, path).await.status, 200);
        let part = scene.other.send(scene.other.request(Method::GET, path).header("range", "bytes=0-1")).await.unwrap();
        assert_eq!((part.status, part.bytes.len()), (206, 2));
        // A link only permits reading, and only the content.
        fails(&scene.open(Method::DELETE, path).await, 401, "unauthorized");
        let (_, query) = path.split_once('?').unwrap();
        fails(&scene.open(Method::GET, &format!("{}/link?{query}", url(&file))).await, 401, "unauthorized");
        fails(&scene.open(Method::GET, url(&file)).await, 401, "unauthorized");
    }
}

async fn altered_link_is_rejected(scene: Scene) {
    let (file, another) = (scene.file(None).await, scene.file(None).await);
    let link = scene.link(&file, &scene.account).await.expect(200).unwrap();
    let (path, query) = link["url"].as_str().unwrap().split_once('?').unwrap();
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let (expires, signature) = (parameter("expires"), parameter("signature"));
    let other = char::from(if signature.starts_with('A') { b'B' } else { b'A' });
    let later = expires.parse::<i64>().unwrap() + 60_000;
    let refusals = [
        format!("{path}?expires={later}&signature={signature}"),
        format!("{path}?expires=0&signature={signature}"),
        format!("{path}?expires=-1&signature={signature}"),
        format!("{path}?expires=99999999999999999999&signature={signature}"),
        format!("{path}?expires=soon&signature={signature}"),
        format!("{path}?expires={expires}&signature={other}{}", &signature[1..]),
        format!("{path}?expires={expires}&signature={}", &signature[1..]),
        format!("{path}?expires={expires}&signature={signature}A"),
        format!("{path}?expires={expires}&signature="),
        format!("{path}?expires={expires}"),
        format!("{path}?signature={signature}"),
        format!("{}?{query}", url(&another)),
        format!("/api/files/{}?{query}", uuid::Uuid::now_v7()),
    ];
    for refused in refusals {
        for method in [Method::GET, Method::HEAD] {
            let answer = scene.open(method.clone(), &refused).await;
            assert_eq!(answer.status, 401, "{method} {refused}: {}", answer.body);
        }
    }
    fails(&scene.open(Method::GET, &format!("{path}?expires={expires}&signature=%00")).await, 400, "invalid_request");
    assert_eq!(scene.open(Method::GET, &format!("{path}?{query}")).await.status, 200);
}

async fn link_ends_with_its_file(scene: Scene) {
    let file = scene.file(Some(&scene.room)).await;
    let link = scene.link(&file, &scene.account).await.expect(200).unwrap();
    let path = link["url"].as_str().unwrap();
    assert_eq!(scene.open(Method::GET, path).await.status, 200);
    assert_eq!(scene.delete(url(&file), &scene.account).await.status, 204);
    fails(&scene.open(Method::GET, path).await, 401, "unauthorized");
    fails(&scene.link(&file, &scene.account).await, 404, "not_found");

    // The link also ends with its room, though not at once: its bearer has no permissions that could be checked there.
    let file = scene.file(Some(&scene.room)).await;
    let link = scene.link(&file, &scene.account).await.expect(200).unwrap();
    assert_eq!(scene.delete(&format!("/api/rooms/{}", scene.room), &scene.account).await.status, 204);
    let closed = async || (scene.open(Method::GET, link["url"].as_str().unwrap()).await.status == 401).then_some(());
    eventually("the link is closed", Duration::from_secs(10), closed).await.unwrap();
}

async fn user_who_may_not_read_gets_no_link(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    fails(&scene.link(&scene.file(None).await, &stranger).await, 404, "not_found");
    let shared = scene.file(Some(&scene.room)).await;
    scene.link(&shared, &stranger).await.expect(200).unwrap();
    let link = format!("{}/link", url(&shared));
    fails(&scene.open(Method::GET, &link).await, 401, "unauthorized");
}

//! The search of messages, on the embedded program and on a cluster with another gateway at each end.

use std::time::{Duration, Instant};

use confab_tests::api::{Account, Api, unique};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

/// Runs each test twice: on the embedded program, and in the cluster with a different gateway at each end.
macro_rules! at_both_ends {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Scene::embedded().await.unwrap()).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Scene::cluster().await.unwrap()).await;
            })+
        }
    };
}

at_both_ends!(
    a_message_is_found_within_two_seconds,
    edits_and_deletions_are_reflected,
    senders_and_times_are_filters,
    pages_have_every_message_once,
    a_removed_member_finds_nothing,
    a_deleted_room_is_not_searched,
    wrong_searches_are_rejected,
    server_keys_search,
);

/// The promised time until a change is in the index, with time for a slow machine.
const WITHIN: Duration = Duration::from_secs(3);

/// A private room with an owner and a member, and a stranger. Searches are made at the other end.
struct Scene {
    one: Api,
    other: Api,
    key: Account,
    owner: Account,
    member: Account,
    stranger: Account,
    room: String,
}

impl Scene {
    async fn embedded() -> anyhow::Result<Self> {
        let (server, key) = world::embedded_with_key().await;
        let api = Api::new(server.url());
        Self::at(api.clone(), api, key.clone()).await
    }

    async fn cluster() -> anyhow::Result<Self> {
        let [one, other] = <[Api; 2]>::try_from(world::gateways(world::cluster().await))
            .map_err(|_| anyhow::anyhow!("two gateways"))?;
        Self::at(one, other, world::key_of_cluster().await.clone()).await
    }

    async fn at(one: Api, other: Api, key: Account) -> anyhow::Result<Self> {
        let (owner, member, stranger) = (one.signup().await?, one.signup().await?, one.signup().await?);
        let new = json!({"name": unique("private"), "visibility": "private"});
        let room = one.post("/api/rooms", &owner, new).await?.expect(201)?;
        let room = room["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/api/rooms/{room}/members/{}", member.id);
        one.call(Method::PUT, &path, Some(&owner), Some(json!({}))).await?.expect(201)?;
        Ok(Self { one, other, key, owner, member, stranger, room })
    }

    /// Sends a message at one end.
    async fn say(&self, who: &Account, content: &str) -> Value {
        let path = format!("/api/rooms/{}/messages", self.room);
        self.one.post(&path, who, json!({"content": content})).await.unwrap().expect(201).unwrap()
    }

    async fn search(&self, who: &Account, query: &str) -> Value {
        let answer = self.other.get(&format!("/api/search?{query}"), who).await.unwrap();
        answer.expect(200).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Searches until these messages are found; returns the last page.
    async fn finds(&self, who: &Account, query: &str, contents: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let page = self.search(who, query).await;
            let items = page["items"].as_array().unwrap();
            let found = items.iter().map(|item| item["message"]["content"].as_str().unwrap()).collect::<Vec<_>>();
            if found == contents {
                return page;
            }
            assert!(begun.elapsed() < WITHIN, "{query}: {found:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn in_room(&self, query: &str) -> String {
        format!("{query}&roomId={}", self.room)
    }
}

async fn a_message_is_found_within_two_seconds(scene: Scene) {
    let sent = scene.say(&scene.owner, "Grüße aus 上海, Café").await;
    for query in ["q=grusse", "q=caf", "q=%E4%B8%8A%E6%B5%B7", "q=CAFE%20aus"] {
        for query in [query.to_owned(), scene.in_room(query)] {
            let page = scene.finds(&scene.member, &query, &["Grüße aus 上海, Café"]).await;
            assert_eq!(page["items"][0]["message"], sent);
            assert_eq!(page["nextCursor"], json!(null));
        }
    }
    let page = scene.search(&scene.member, "q=CAFE%20aus").await;
    assert_eq!(page["items"][0]["highlights"], json!([[6, 9], [14, 18]]));
    let begun = Instant::now();
    while scene.search(&scene.member, "q=cafe").await["upTo"].as_str().unwrap() <= sent["createdAt"].as_str().unwrap() {
        assert!(begun.elapsed() < WITHIN);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for nothing in ["q=cafes", "q=%21", "q=%F0%9F%91%8D"] {
        assert_eq!(scene.search(&scene.member, nothing).await["items"], json!([]), "{nothing}");
    }
}

async fn edits_and_deletions_are_reflected(scene: Scene) {
    let seq = scene.say(&scene.owner, "apples").await["seq"].clone();
    scene.finds(&scene.member, "q=apples", &["apples"]).await;
    let path = format!("/api/rooms/{}/messages/{seq}", scene.room);
    let edit = Some(json!({"content": "pears"}));
    scene.one.call(Method::PATCH, &path, Some(&scene.owner), edit).await.unwrap().expect(200).unwrap();
    assert_eq!(scene.search(&scene.member, "q=apples").await["items"], json!([]), "from the response on");
    scene.finds(&scene.member, "q=pears", &["pears"]).await;
    scene.one.call(Method::DELETE, &path, Some(&scene.owner), None).await.unwrap().expect(200).unwrap();
    assert_eq!(scene.search(&scene.member, "q=pears").await["items"], json!([]), "from the response on");
}

async fn senders_and_times_are_filters(scene: Scene) {
    scene.say(&scene.owner, "tea 1").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = scene.say(&scene.member, "tea 2").await;
    scene.finds(&scene.member, "q=tea", &["tea 2", "tea 1"]).await;
    let before = format!("q=tea&before={}", second["createdAt"].as_str().unwrap());
    let by_name = format!("q=tea&from=@{}", scene.owner.username);
    let by_id = format!("q=tea&from={}", scene.owner.id);
    for (query, contents) in [
        ("q=tea&from=me", &["tea 2"][..]),
        (&by_name, &["tea 1"]),
        (&by_id, &["tea 1"]),
        (&before, &["tea 1"]),
        ("q=tea&from=@no-such-user-at-all", &[]),
        ("q=tea&before=2020-01-01T00:00:00Z", &[]),
    ] {
        scene.finds(&scene.member, query, contents).await;
    }
}

async fn pages_have_every_message_once(scene: Scene) {
    for n in 0..12 {
        scene.say(&scene.owner, &format!("coffee {n}")).await;
    }
    scene.finds(&scene.member, "q=coffee%2011", &["coffee 11"]).await;
    let (mut query, mut found) = (scene.in_room("q=coffee&limit=5"), Vec::new());
    loop {
        let page = scene.search(&scene.member, &query).await;
        let items = page["items"].as_array().unwrap();
        found.extend(items.iter().map(|item| item["message"]["content"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = scene.in_room(&format!("q=coffee&limit=5&cursor={cursor}"));
    }
    assert_eq!(found, (0..12).rev().map(|n| format!("coffee {n}")).collect::<Vec<_>>());
}

async fn a_removed_member_finds_nothing(scene: Scene) {
    scene.say(&scene.owner, "secret").await;
    scene.finds(&scene.member, "q=secret", &["secret"]).await;
    assert_eq!(scene.search(&scene.stranger, "q=secret").await["items"], json!([]));
    let path = format!("/api/rooms/{}/members/{}", scene.room, scene.member.id);
    scene.one.call(Method::DELETE, &path, Some(&scene.owner), None).await.unwrap().expect(204).unwrap();
    scene.finds(&scene.member, "q=secret", &[]).await;
    for hidden in [&scene.member, &scene.stranger] {
        let path = format!("/api/search?{}", scene.in_room("q=secret"));
        let answer = scene.other.get(&path, hidden).await.unwrap();
        assert_eq!((answer.status, answer.code()), (404, "not_found"));
    }
    scene.finds(&scene.owner, "q=secret", &["secret"]).await;
}

async fn a_deleted_room_is_not_searched(scene: Scene) {
    scene.say(&scene.owner, "gone").await;
    scene.finds(&scene.member, "q=gone", &["gone"]).await;
    let path = format!("/api/rooms/{}", scene.room);
    scene.one.call(Method::DELETE, &path, Some(&scene.owner), None).await.unwrap().expect(204).unwrap();
    scene.finds(&scene.member, "q=gone", &[]).await;
    let path = format!("/api/search?{}", scene.in_room("q=gone"));
    assert_eq!(scene.other.get(&path, &scene.owner).await.unwrap().status, 404);
}

async fn wrong_searches_are_rejected(scene: Scene) {
    let (long, words) = ("x".repeat(201), (0..11).map(|n| format!("w{n}")).collect::<Vec<_>>().join("+"));
    for (query, field) in [
        ("", "q"),
        ("q=", "q"),
        (&*format!("q={long}"), "q"),
        (&*format!("q={words}"), "q"),
        ("q=x&limit=201", "limit"),
        ("q=x&cursor=x", "cursor"),
        ("q=x&from=x", "from"),
        ("q=x&before=now", "before"),
        ("q=x&roomId=x", "roomId"),
    ] {
        let answer = scene.other.get(&format!("/api/search?{query}"), &scene.member).await.unwrap();
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{query}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{query}");
    }
}

async fn server_keys_search(scene: Scene) {
    scene.say(&scene.owner, "audited").await;
    scene.finds(&scene.key, &scene.in_room("q=audited"), &["audited"]).await;
    let answer = scene.other.get("/api/search?q=audited", &scene.key).await.unwrap();
    assert_eq!((answer.status, answer.code()), (400, "invalid_request"));
}

//! Files over REST and real time, on the embedded program with its directory and on the cluster with its S3 store.

/// Runs each test twice: on the embedded program, and in the cluster with a different gateway at each end.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::files::Scene::embedded().await.unwrap()).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::files::Scene::cluster().await.unwrap()).await;
            })+
        }
    };
}

mod attach;
mod clients;
mod download;
mod fair;
mod faults;
mod limits;
mod link;
mod malformed;
mod names;
mod real;
mod removal;
mod rights;
mod share;
mod upload;

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::objects::sha256;
use serde_json::{Value, json};

use crate::world;

/// An account with a room, and a server with two ends, which may be the same.
struct Scene {
    one: Api,
    other: Api,
    account: Account,
    room: String,
}

impl Scene {
    async fn embedded() -> anyhow::Result<Self> {
        let api = Api::new(world::embedded().await.url());
        Self::at(api.clone(), api).await
    }

    async fn cluster() -> anyhow::Result<Self> {
        let [one, other] = <[Api; 2]>::try_from(world::gateways(world::cluster().await))
            .map_err(|_| anyhow::anyhow!("two gateways"))?;
        Self::at(one, other).await
    }

    async fn at(one: Api, other: Api) -> anyhow::Result<Self> {
        limits::begin_to_trickle();
        let account = one.signup().await?;
        let room = one.room(&account).await?;
        Ok(Self { one, other, account, room })
    }

    /// Uploads a file, to the room or without a room.
    async fn file(&self, room: Option<&str>) -> Value {
        self.one.share(&self.account, room, "plain.txt", unique("text").as_bytes()).await.unwrap()
    }

    /// Returns the room's messages, oldest first, from the other end.
    async fn history(&self) -> Vec<Value> {
        self.other.history(&self.room, &self.account, 200).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.other.get(path, &self.account).await.unwrap()
    }

    async fn delete(&self, path: &str, who: &Account) -> Answer {
        self.one.call(reqwest::Method::DELETE, path, Some(who), None).await.unwrap()
    }

    /// Checks that a file object describes these bytes exactly as documented.
    #[track_caller]
    fn is_file(&self, file: &Value, room: Option<&str>, name: &str, content_type: &str, bytes: &[u8]) {
        let id = file["id"].as_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
        assert!(file["createdAt"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{file}");
        let expected = json!({
            "id": id,
            "name": name,
            "size": bytes.len(),
            "contentType": content_type,
            "sha256": sha256(bytes),
            "url": format!("/api/files/{id}"),
            "roomId": room,
            "uploadedBy": {"id": self.account.id, "username": self.account.username},
            "createdAt": file["createdAt"],
        });
        assert_eq!(*file, expected);
    }

    /// Checks that a message shares exactly this file.
    #[track_caller]
    fn is_share(&self, message: &Value, file: &Value, client_message_id: Option<&str>) {
        let expected = json!({
            "id": message["id"],
            "roomId": self.room,
            "seq": message["seq"],
            "type": "file",
            "sender": {"id": self.account.id, "username": self.account.username},
            "content": "",
            "files": [file],
            "clientMessageId": client_message_id,
            "createdAt": message["createdAt"],
            "ordinal": message["ordinal"],
            "revision": message["seq"],
            "editedAt": null,
            "deleted": false,
            "deletedBy": null,
            "pinned": false,
            "reactions": [],
            "data": {},
        });
        assert!(message["ordinal"].is_u64(), "{message}");
        assert_eq!(*message, expected);
    }
}

fn url(file: &Value) -> &str {
    file["url"].as_str().unwrap()
}

/// Checks a failure: status, code, and the form of RFC 9457.
#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.body["title"].is_string() && answer.body["requestId"].is_string(), "{}", answer.body);
}

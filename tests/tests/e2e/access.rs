//! Private rooms, members and roles, on the embedded program and on a cluster with another gateway at each end.

/// Runs each test twice: on the embedded program, and in the cluster with a different gateway at each end.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::access::Scene::embedded().await.unwrap()).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::access::Scene::cluster().await.unwrap()).await;
            })+
        }
    };
}

mod accounts;
mod directory;
mod hidden;
mod issuers;
mod keys;
mod matrix;
mod members;
mod mine;
mod removal;
mod visibility;

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::raw::{Client, WebSocket};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

/// A server with two ends, which may be the same, and a private room of `owner` with the member `guest`.
struct Scene {
    one: Api,
    other: Api,
    owner: Account,
    guest: Account,
    stranger: Account,
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
        let (owner, guest, stranger) = (one.signup().await?, one.signup().await?, one.signup().await?);
        let new = json!({"name": unique("private"), "visibility": "private"});
        let room = one.post("/api/rooms", &owner, new).await?.expect(201)?;
        let room = room["id"].as_str().unwrap_or_default().to_owned();
        let scene = Self { one, other, owner, guest, stranger, room };
        scene.put(&scene.owner, &scene.guest.id, json!({})).await.expect(201)?;
        Ok(scene)
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/rooms/{}{rest}", self.room)
    }

    /// Adds or changes a member.
    async fn put(&self, who: &Account, user: &str, body: Value) -> Answer {
        self.one.call(Method::PUT, &self.path(&format!("/members/{user}")), Some(who), Some(body)).await.unwrap()
    }

    /// Removes a member.
    async fn remove(&self, who: &Account, user: &str) -> Answer {
        self.one.call(Method::DELETE, &self.path(&format!("/members/{user}")), Some(who), None).await.unwrap()
    }

    async fn post(&self, who: &Account, content: &str) -> Answer {
        self.other.post("/api/messages", who, json!({"roomId": self.room, "content": content})).await.unwrap()
    }

    /// Opens a socket at the other end and joins the room with this argument.
    async fn joined(&self, who: &Account, argument: Value) -> (WebSocket, Value) {
        let mut socket = WebSocket::connect(&self.other.url, &who.token).await.unwrap();
        let mut argument = argument;
        argument["roomId"] = json!(self.room);
        let ack = socket.emit("joinRoom", argument).await.unwrap();
        (socket, ack)
    }

    /// Returns the names and the roles of the members, in the order of the list.
    async fn members(&self) -> Vec<(String, String)> {
        let listed = self.other.get(&self.path("/members"), &self.owner).await.unwrap().expect(200).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let member = |member: &Value| (text(&member["user"]["username"]), text(&member["role"]));
        listed["items"].as_array().unwrap().iter().map(member).collect()
    }

    /// Returns the room's history as its owner reads it.
    async fn history(&self) -> Vec<Value> {
        self.other.history(&self.room, &self.owner, 200).await.unwrap()
    }
}

#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
}

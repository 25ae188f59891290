//! Edits, deletions and pins of messages, on the embedded program and on a cluster with another gateway at each end.

/// Runs each test twice: on the embedded program, and in the cluster with a different gateway at each end.
macro_rules! at_both_ends {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::changes::Scene::embedded().await.unwrap()).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::changes::Scene::cluster().await.unwrap()).await;
            })+
        }
    };
}

pub(crate) use at_both_ends;

mod catching_up;
mod data;
mod files;
mod live;
mod present;
mod reactions;
mod rights;

use std::collections::BTreeMap;

use confab_tests::api::{Account, Answer, Api, unique};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

/// A server with two ends, which may be the same, a server key with all scopes, and a private room with an owner and
/// two members.
pub struct Scene {
    pub one: Api,
    pub other: Api,
    key: Account,
    pub owner: Account,
    pub author: Account,
    pub reader: Account,
    pub room: String,
}

impl Scene {
    pub async fn embedded() -> anyhow::Result<Self> {
        let (server, key) = world::embedded_with_key().await;
        let api = Api::new(server.url());
        Self::at(api.clone(), api, key.clone()).await
    }

    pub async fn cluster() -> anyhow::Result<Self> {
        let [one, other] = <[Api; 2]>::try_from(world::gateways(world::cluster().await))
            .map_err(|_| anyhow::anyhow!("two gateways"))?;
        Self::at(one, other, world::key_of_cluster().await.clone()).await
    }

    async fn at(one: Api, other: Api, key: Account) -> anyhow::Result<Self> {
        let (owner, author, reader) = (one.signup().await?, one.signup().await?, one.signup().await?);
        let new = json!({"name": unique("private"), "visibility": "private"});
        let room = one.post("/api/rooms", &owner, new).await?.expect(201)?;
        let room = room["id"].as_str().unwrap_or_default().to_owned();
        for member in [&author, &reader] {
            let path = format!("/api/rooms/{room}/members/{}", member.id);
            one.call(Method::PUT, &path, Some(&owner), Some(json!({}))).await?.expect(201)?;
        }
        Ok(Self { one, other, key, owner, author, reader, room })
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/rooms/{}/messages{rest}", self.room)
    }

    /// Sends a message of the author at one end; returns its seq.
    pub async fn say(&self, content: &str) -> u64 {
        let sent = self.one.post(&self.path(""), &self.author, json!({"content": content})).await.unwrap();
        sent.expect(201).unwrap()["seq"].as_u64().unwrap()
    }

    /// Calls an end about a message.
    async fn call(&self, api: &Api, method: Method, who: &Account, rest: &str, body: Option<Value>) -> Answer {
        api.call(method, &self.path(rest), Some(who), body).await.unwrap()
    }

    /// Edits a message at one end.
    pub async fn edit(&self, who: &Account, seq: u64, content: &str) -> Answer {
        let body = json!({"content": content});
        self.call(&self.one, Method::PATCH, who, &format!("/{seq}"), Some(body)).await
    }

    /// Deletes a message at the other end.
    pub async fn delete(&self, who: &Account, seq: u64) -> Answer {
        self.call(&self.other, Method::DELETE, who, &format!("/{seq}"), None).await
    }

    /// Pins a message at one end, or ends its pin.
    async fn pin(&self, who: &Account, seq: u64, on: bool) -> Answer {
        let method = if on { Method::PUT } else { Method::DELETE };
        self.call(&self.one, method, who, &format!("/{seq}/pin"), None).await
    }

    /// Returns the room's history, as the reader reads it at the other end.
    async fn history(&self) -> Vec<Value> {
        self.other.history(&self.room, &self.reader, 200).await.unwrap()
    }

    /// Returns the newest seq of the room.
    async fn last_seq(&self) -> u64 {
        let page = self.call(&self.other, Method::GET, &self.reader, "?limit=1", None).await.expect(200).unwrap();
        page["lastSeq"].as_u64().unwrap()
    }
}

/// What a client holds of the room: it takes messages and changes by the one rule of the contract.
#[derive(Debug, Default)]
struct Held {
    messages: BTreeMap<u64, Value>,
    /// The highest seq of anything received.
    seq: u64,
}

impl Held {
    /// Takes new messages.
    fn add(&mut self, messages: &Value) {
        for message in messages.as_array().unwrap() {
            self.see(message["seq"].as_u64().unwrap());
            self.messages.insert(message["seq"].as_u64().unwrap(), message.clone());
        }
    }

    /// Takes a message in another state, if it is newer than the held one.
    fn replace(&mut self, message: &Value) {
        let revision = |message: &Value| message["revision"].as_u64().unwrap();
        if let Some(held) = self.messages.get_mut(&message["seq"].as_u64().unwrap())
            && revision(message) > revision(held)
        {
            *held = message.clone();
        }
    }

    /// Takes a live event.
    fn receive(&mut self, name: &str, event: &Value) {
        let seq = event["seq"].as_u64().unwrap();
        assert_eq!(seq, self.seq + 1, "{name}: {event}");
        if name.starts_with("messageUpdated") || name.starts_with("messageDeleted") {
            let revision = event["message"]["revision"].as_u64().unwrap();
            assert!(revision >= seq && event["message"]["seq"] == event["target"], "{event}");
            self.see(seq);
            self.replace(&event["message"]);
        } else {
            self.add(&json!([event]));
        }
    }

    /// Takes the answer to `joinRoom` with `after`.
    fn catch_up(&mut self, ack: &Value) {
        self.add(&ack["messages"]);
        ack["changed"].as_array().unwrap().iter().for_each(|message| self.replace(message));
        self.see(ack["lastSeq"].as_u64().unwrap());
    }

    fn see(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    fn list(&self) -> Vec<Value> {
        self.messages.values().cloned().collect()
    }
}

#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
}

//! The history of a server, with every kind of stored data.

use std::time::Duration;

use anyhow::Context;
use confab_tests::api::{Account, Api, unique};
use confab_tests::form::Form;
use confab_tests::stock::{Stock, Transports};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

/// The state of the server at the end of its history.
pub struct Past {
    pub ada: Account,
    pub bob: Account,
    /// Bob's session that was logged out.
    pub left: Account,
    pub room: String,
    pub room_name: String,
    pub history: Vec<Value>,
    /// A message that can be repeated.
    pub said: Value,
    /// Files with their content. The first was uploaded as `upload`.
    pub files: Vec<(Value, Vec<u8>)>,
    pub deleted_file: Value,
    pub deleted_room: String,
    pub epoch: String,
    /// The newest `seq` of the room.
    pub last: u64,
}

pub fn url(file: &Value) -> &str {
    file["url"].as_str().unwrap()
}

impl Past {
    pub async fn live(api: &Api) -> anyhow::Result<Self> {
        let (ada, bob) = (api.signup().await?, api.signup().await?);
        let credentials = json!({"username": bob.username, "password": "correct horse battery"});
        let left =
            Account::of(&api.call(Method::POST, "/api/auth/login", None, Some(credentials)).await?.expect(200)?)?;
        api.post("/api/auth/logout", &left, json!({})).await?.expect(200)?;

        let (room, deleted_room) = (api.room(&ada).await?, api.room(&bob).await?);
        api.post("/api/messages", &bob, json!({"roomId": deleted_room, "content": "gone"})).await?.expect(201)?;
        api.share(&bob, Some(&deleted_room), "gone.txt", b"gone with its room").await?;
        api.call(Method::DELETE, &format!("/api/rooms/{deleted_room}"), Some(&bob), None).await?.expect(204)?;

        let mut said = Value::Null;
        for n in 1..=40 {
            let content = format!("number {n} \"\\\n\u{1F375} \u{2028} é");
            let message = json!({"roomId": room, "content": content, "clientMessageId": unique("past")});
            said =
                api.post("/api/messages", if n % 2 == 0 { &ada } else { &bob }, message.clone()).await?.expect(201)?;
            if n % 10 == 0 {
                api.post("/api/messages", &ada, message).await?.expect(200)?;
            }
        }
        let room_name = unique("renamed \u{1F375}");
        api.call(Method::PATCH, &format!("/api/rooms/{room}"), Some(&ada), Some(json!({"name": room_name})))
            .await?
            .expect(200)?;
        let (files, deleted_file) = files(api, &ada, &room).await?;

        let shown = async || {
            let history = api.history(&room, &ada, 200).await.ok()?;
            history.iter().any(|message| message["files"][1]["deleted"] == true).then_some(history)
        };
        let history = eventually("the file is shown as deleted", Duration::from_secs(10), shown).await?;
        let socket = Stock::javascript()?.connect(&api.url, &ada.token, Transports::WebSocket).await?;
        let joined = socket.emit("joinRoom", json!(room)).await?;
        let epoch = joined["epoch"].as_str().context("an epoch")?.into();
        let last = joined["lastSeq"].as_u64().context("a last seq")?;
        Ok(Self { ada, bob, left, room, room_name, history, said, files, deleted_file, deleted_room, epoch, last })
    }
}

/// Shares files: one with a `clientMessageId`, two in a message (one of them deleted), one in no room, and an empty
/// one.
async fn files(api: &Api, ada: &Account, room: &str) -> anyhow::Result<(Vec<(Value, Vec<u8>)>, Value)> {
    let large = (0..700_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>();
    let form = Form::new().field("roomId", room).field("clientMessageId", "upload").file("large.bin", "a/b", &large);
    let mut files = vec![(api.upload(ada, form).await?.expect(201)?, large)];
    for (name, bytes) in [("small.txt", "bytes of a small file"), ("empty", "")] {
        files.push((api.share(ada, None, name, bytes.as_bytes()).await?, bytes.into()));
    }
    let deleted = api.share(ada, None, "deleted.txt", b"deleted").await?;
    let attached = json!({"roomId": room, "content": "see", "fileIds": [files[1].0["id"], deleted["id"]]});
    let message = api.post("/api/messages", ada, attached).await?.expect(201)?;
    files[1].0 = message["files"][0].clone();
    api.call(Method::DELETE, url(&deleted), Some(ada), None).await?.expect(204)?;
    Ok((files, deleted))
}

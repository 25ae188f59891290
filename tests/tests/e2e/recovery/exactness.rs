//! When exactness cannot be guaranteed, a client is not recovered, and a new `pid` shows this.

use anyhow::ensure;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use confab_tests::api::{Account, Api};
use confab_tests::raw::{Client, WebSocket};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

/// The state that a client kept when it lost its connection.
#[derive(Clone)]
struct Kept {
    pid: Value,
    offset: Value,
}

impl Kept {
    fn of(connected: &Value, socket: &mut WebSocket) -> Self {
        Self { pid: connected["pid"].clone(), offset: json!(socket.offsets().last()) }
    }

    fn auth(&self, account: &Account) -> Value {
        json!({"token": account.token, "recovery": true, "pid": self.pid, "offset": self.offset})
    }
}

/// Connects a client with recovery, joins these rooms, and disconnects; returns the state that the client kept.
async fn leave_behind(api: &Api, account: &Account, rooms: &[String]) -> anyhow::Result<Kept> {
    let mut socket = WebSocket::open(&api.url).await?;
    let connected = socket.enter_with(&json!({"token": account.token, "recovery": true})).await?;
    socket.event("session").await?;
    for room in rooms {
        let ack = socket.emit("joinRoom", json!(room)).await?;
        ensure!(ack["ok"] == true, "{ack}");
        for _ in 0..2 {
            // Once before the answer and once after it.
            socket.event("session").await?;
        }
    }
    Ok(Kept::of(&connected, &mut socket))
}

/// Returns whether the client is recovered.
async fn is_back(api: &Api, account: &Account, kept: &Kept) -> anyhow::Result<bool> {
    let mut socket = WebSocket::open(&api.url).await?;
    let connected = socket.enter_with(&kept.auth(account)).await?;
    let back = connected["pid"] == kept.pid;
    if !back {
        ensure!(connected["pid"].is_string(), "{connected}");
        // The client is in no room; its first offset encodes this and replaces the old one.
        socket.event("session").await?;
        ensure!(socket.offsets().last().is_some_and(|offset| kept.offset != *offset), "the old offset lives on");
    }
    Ok(back)
}

async fn stage() -> anyhow::Result<(Api, Account)> {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await?;
    Ok((api, account))
}

#[tokio::test]
async fn foreign_offset_recovers_no_client() {
    let (api, account) = stage().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let kept = leave_behind(&api, &account, std::slice::from_ref(&room)).await.unwrap();
    assert!(is_back(&api, &account, &kept).await.unwrap());
    assert!(!is_back(&api, &api.signup().await.unwrap(), &kept).await.unwrap(), "another user");
    let with = |pid: &Value, offset: Value| Kept { pid: pid.clone(), offset };
    let text = kept.offset.as_str().unwrap();
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    // The last byte is the room's `seq` plus one.
    *bytes.last_mut().unwrap() += 1;
    let ahead = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
    let another_epoch = {
        bytes[20] ^= 1;
        *bytes.last_mut().unwrap() -= 1;
        BASE64_URL_SAFE_NO_PAD.encode(&bytes)
    };
    let bad = [
        with(&json!("another"), kept.offset.clone()),
        with(&json!(7), kept.offset.clone()),
        with(&Value::Null, kept.offset.clone()),
        with(&kept.pid, json!("nonsense")),
        with(&kept.pid, json!({"deep": [[[[]]]]})),
        with(&kept.pid, Value::Null),
        with(&kept.pid, json!("A".repeat(10_000))),
        with(&kept.pid, json!(text[..text.len() - 4])),
        with(&kept.pid, json!(ahead)),
        with(&kept.pid, json!(another_epoch)),
    ];
    for kept in bad {
        assert!(!is_back(&api, &account, &kept).await.unwrap(), "{} {}", kept.pid, kept.offset);
    }
}

#[tokio::test]
async fn client_without_the_offset_after_a_join_is_not_recovered() {
    let (api, account) = stage().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let mut socket = WebSocket::open(&api.url).await.unwrap();
    let connected = socket.enter_with(&json!({"token": account.token, "recovery": true})).await.unwrap();
    socket.event("session").await.unwrap();
    let before = Kept::of(&connected, &mut socket);
    let join = socket.emit_later("joinRoom", &json!(room)).await.unwrap();
    // Everything arrives in one write; a client that has read only up to the answer keeps the offset before the answer.
    socket.ack(join).await.unwrap();
    for _ in 0..2 {
        socket.event("session").await.unwrap();
    }
    let marked = Kept { offset: json!(socket.offsets().iter().nth_back(1)), ..before.clone() };
    assert!(!is_back(&api, &account, &marked).await.unwrap());
    assert!(is_back(&api, &account, &before).await.unwrap(), "a client without the answer is in no room");
}

#[tokio::test]
async fn clients_with_too_many_rooms_or_missed_events_are_not_recovered() {
    let (api, account) = stage().await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..17 {
        rooms.push(api.room(&account).await.unwrap());
    }
    assert!(is_back(&api, &account, &leave_behind(&api, &account, &rooms[..16]).await.unwrap()).await.unwrap());
    assert!(!is_back(&api, &account, &leave_behind(&api, &account, &rooms).await.unwrap()).await.unwrap());

    let kept = leave_behind(&api, &account, &rooms[..1]).await.unwrap();
    let mut writer = WebSocket::connect(&api.url, &account.token).await.unwrap();
    for (batches, back) in [(5, true), (6, false)] {
        for _ in 0..batches {
            let messages = (0..200).map(|n| json!({"roomId": rooms[0], "content": n.to_string()})).collect::<Vec<_>>();
            for number in writer.emit_all("message", &messages).await.unwrap() {
                assert_eq!(writer.ack(number).await.unwrap()["ok"], true);
            }
        }
        assert_eq!(is_back(&api, &account, &kept).await.unwrap(), back);
    }
}

#[tokio::test]
async fn deleted_room_is_not_recovered() {
    let (api, account) = stage().await.unwrap();
    let rooms = [api.room(&account).await.unwrap(), api.room(&account).await.unwrap()];
    let kept = leave_behind(&api, &account, &rooms).await.unwrap();
    api.call(Method::DELETE, &format!("/api/rooms/{}", rooms[1]), Some(&account), None)
        .await
        .unwrap()
        .expect(204)
        .unwrap();
    assert!(!is_back(&api, &account, &kept).await.unwrap());
}

#[tokio::test]
async fn missed_events_follow_connect_and_precede_new_ones() {
    let (api, account) = stage().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let mut kept = leave_behind(&api, &account, std::slice::from_ref(&room)).await.unwrap();
    let mut writer = WebSocket::connect(&api.url, &account.token).await.unwrap();
    let mut received = Vec::new();
    // While another client writes without a pause.
    for _ in 0..30 {
        let messages = (0..20).map(|n| json!({"roomId": room, "content": n.to_string()})).collect::<Vec<_>>();
        let numbers = writer.emit_all("message", &messages).await.unwrap();
        let mut socket = WebSocket::open(&api.url).await.unwrap();
        let connected = socket.enter_with(&kept.auth(&account)).await.unwrap();
        assert_eq!(connected["pid"], kept.pid);
        for number in numbers {
            assert_eq!(writer.ack(number).await.unwrap()["ok"], true);
        }
        received.push(socket.event("message").await.unwrap());
        let rest = socket.taken_events().into_iter().filter(|(name, _)| name == "message");
        received.extend(rest.map(|(_, message)| message));
        kept = Kept::of(&connected, &mut socket);
    }
    let seqs = received.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

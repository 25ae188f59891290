//! Joining and leaving: the messages in the answer to `joinRoom` and the events after it are exactly history.

use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::raw::{Client, WebSocket};
use confab_tests::stock::{Stock, Transports};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::writer::Writer;
use super::{Scene, fails};
use crate::world;

#[tokio::test]
async fn join_room_answer_is_exact() {
    let scene = Scene::new().await.unwrap();
    let mut sent = Vec::new();
    for n in 1..=7 {
        sent.push(scene.post(&format!("m{n}")).await.unwrap());
    }
    let path = format!("/api/rooms/{}", scene.room);
    let mut room = scene.api.get(&path, &scene.account).await.unwrap().expect(200).unwrap();
    room.as_object_mut().unwrap().remove("messages");
    assert_eq!((&room["notify"]["level"], room["readSeq"].is_u64()), (&json!("all"), true), "{room}");
    let mut socket = scene.socket().await.unwrap();
    let marker = async || scene.api.get(&path, &scene.account).await.unwrap().expect(200).unwrap()["readSeq"].clone();
    // The author has read the messages within a second.
    let read = async || (marker().await == 7).then_some(());
    eventually("the author has read the messages", Duration::from_secs(20), read).await.unwrap();
    (room["readSeq"], room["unread"]) = (json!(7), json!(0));
    let plain = socket.emit("joinRoom", json!(scene.room)).await.unwrap();
    let epoch = plain["epoch"].clone();
    assert!(epoch.is_string());
    let answer = |messages: &[Value], complete: bool, reset: bool| {
        let (room, epoch) = (&room, &epoch);
        json!({
            "ok": true, "room": room, "lastSeq": 7, "lastOrdinal": 7, "epoch": epoch, "messages": messages, "complete": complete,
            "changed": [], "changedComplete": true, "mine": [], "reset": reset
        })
    };
    assert_eq!(plain, answer(&[], true, false));
    let cases = [
        (json!({}), answer(&[], true, false)),
        (json!({"after": 0}), answer(&sent, true, false)),
        (json!({"after": 4}), answer(&sent[4..], true, false)),
        (json!({"after": 7}), answer(&[], true, false)),
        (json!({"after": 4, "epoch": epoch}), answer(&sent[4..], true, false)),
        (json!({"last": 1}), answer(&sent[6..], true, false)),
        (json!({"last": 200}), answer(&sent, true, false)),
        (json!({"last": 3, "after": null, "epoch": null, "future": true}), answer(&sent[4..], true, false)),
    ];
    for (mut argument, expected) in cases {
        argument["roomId"] = json!(scene.room);
        assert_eq!(socket.emit("joinRoom", argument.clone()).await.unwrap(), expected, "{argument}");
    }
    // A different epoch, or a position that the log has not reached: the client must read everything again.
    for argument in [json!({"after": 8}), json!({"after": u64::MAX}), json!({"after": 2, "epoch": "another"})] {
        let mut named = argument.clone();
        named["roomId"] = json!(scene.room);
        let ack = socket.emit("joinRoom", named).await.unwrap();
        assert_eq!((&ack["ok"], &ack["reset"], &ack["lastSeq"]), (&json!(true), &json!(true), &json!(7)), "{argument}");
    }
    // In each case the socket is in the room, once.
    let live = scene.post("live").await.unwrap();
    assert_eq!(socket.event("message").await.unwrap(), live);
    assert_eq!(socket.emit("leaveRoom", json!(scene.room)).await.unwrap(), json!({"ok": true}));
    assert_eq!(socket.taken_events(), []);
}

#[tokio::test]
async fn join_room_answer_is_bounded() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let small = (0..205).map(|n| scene.message(n.to_string()));
    let mut numbers = Vec::new();
    for message in small {
        numbers.push(socket.emit_later("message", &message).await.unwrap());
    }
    for number in numbers {
        assert_eq!(socket.ack(number).await.unwrap()["ok"], true);
    }
    let ack = socket.emit("joinRoom", json!({"roomId": scene.room, "after": 0})).await.unwrap();
    let seqs = |ack: &Value| {
        ack["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((seqs(&ack), &ack["complete"]), ((1..=200).collect(), &json!(false)));
    let ack = socket.emit("joinRoom", json!({"roomId": scene.room, "after": 5})).await.unwrap();
    assert_eq!((seqs(&ack), &ack["complete"]), ((6..=205).collect(), &json!(true)));
    for _ in 0..20 {
        assert_eq!(socket.emit("message", scene.message("\u{1}".repeat(16_000))).await.unwrap()["ok"], true);
    }
    let ack = socket.emit("joinRoom", json!({"roomId": scene.room, "after": 205})).await.unwrap();
    assert_eq!((seqs(&ack), &ack["complete"]), (vec![206, 207], &json!(false)));
    assert!(ack["messages"].to_string().len() <= 256 * 1024);
    let ack = socket.emit("joinRoom", json!({"roomId": scene.room, "last": 20})).await.unwrap();
    assert_eq!(seqs(&ack), [224, 225]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_joins_during_writes_miss_and_repeat_nothing() {
    let scene = Scene::new().await.unwrap();
    let writer = Writer::start(&scene).await.unwrap();
    writer.more(20).await.unwrap();
    let mut received = Vec::new();
    for n in 0..50 {
        let mut socket = scene.socket().await.unwrap();
        received.push(joined(&mut socket, &scene.room, n).await.unwrap());
        // Joins again on the same socket: it continues from the new position.
        received.push(joined(&mut socket, &scene.room, n + 1).await.unwrap());
    }
    let history = writer.history(&scene).await.unwrap();
    for messages in received {
        let first = messages[0]["seq"].as_u64().unwrap() as usize;
        assert_eq!(messages, history[first - 1..first - 1 + messages.len()]);
    }
}

/// Joins with some of the history, and reads until ten events have arrived; returns all of them.
async fn joined(socket: &mut WebSocket, room: &str, n: u64) -> anyhow::Result<Vec<Value>> {
    let argument = match n % 2 {
        0 => json!({"roomId": room, "last": 5}),
        _ => {
            json!({"roomId": room, "after": socket.emit("joinRoom", json!(room)).await?["lastSeq"].as_u64().unwrap_or(5) - 5})
        }
    };
    let number = socket.emit_later("joinRoom", &argument).await?;
    let mut ack = socket.ack(number).await?;
    anyhow::ensure!(ack["ok"] == true && ack["complete"] == true, "{ack}");
    // Events before the answer belong to an earlier join.
    socket.taken_events();
    let mut messages = match ack["messages"].take() {
        Value::Array(messages) => messages,
        other => anyhow::bail!("no messages: {other}"),
    };
    let last = messages.last().map(|message| message["seq"].clone());
    anyhow::ensure!(last == Some(ack["lastSeq"].clone()), "{last:?} {ack}");
    for _ in 0..10 {
        messages.push(socket.event("message").await?);
    }
    Ok(messages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_follows_the_leave_room_answer() {
    let scene = Scene::new().await.unwrap();
    let writer = Writer::start(&scene).await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    for round in 0..30 {
        assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
        socket.event("message").await.unwrap();
        let argument = if round % 2 == 0 { json!(scene.room) } else { json!({"roomId": scene.room}) };
        assert_eq!(socket.emit("leaveRoom", argument).await.unwrap(), json!({"ok": true}));
        socket.taken_events();
        writer.more(5).await.unwrap();
        // Once more, outside the room: any late event would precede this answer.
        assert_eq!(socket.emit("leaveRoom", json!(scene.room)).await.unwrap(), json!({"ok": true}));
        assert_eq!(socket.taken_events(), []);
    }
    writer.history(&scene).await.unwrap();
}

#[tokio::test]
async fn room_changes_are_ordered_events_and_deletion_is_last() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let (mut one, mut other) = (scene.member().await.unwrap(), scene.member().await.unwrap());
    let path = format!("/api/rooms/{}", scene.room);
    one.emit("message", scene.message("before")).await.unwrap();
    let change = json!({"description": "new"});
    scene.api.call(Method::PATCH, &path, Some(&scene.account), Some(change)).await.unwrap().expect(200).unwrap();
    one.emit("message", scene.message("after")).await.unwrap();
    let history = scene.api.history(&scene.room, &scene.account, 50).await.unwrap();
    assert_eq!(scene.api.call(Method::DELETE, &path, Some(&scene.account), None).await.unwrap().status, 204);
    for socket in [&mut one, &mut other] {
        let deleted = socket.event("roomDeleted").await.unwrap();
        assert_eq!(
            (&deleted["seq"], &deleted["type"], &deleted["event"]),
            (&json!(4), &json!("system"), &json!("roomDeleted"))
        );
        let received = socket.taken_events();
        let names = received.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["message", "roomUpdated", "message"]);
        assert!(received.iter().map(|(_, event)| event).eq(&history));
        fails(&socket.emit("message", scene.message("too late")).await.unwrap(), 404, "not_found");
        fails(&socket.emit("joinRoom", json!(scene.room)).await.unwrap(), 404, "not_found");
        fails(&socket.emit("joinRoom", json!({"roomId": scene.room, "after": 0})).await.unwrap(), 404, "not_found");
        assert_eq!(socket.taken_events(), []);
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_are_exact_between_two_gateways() {
    let cluster = world::cluster().await;
    let [first, second]: [Api; 2] = world::gateways(cluster).try_into().unwrap_or_else(|_| panic!("two gateways"));
    let account = first.signup().await.unwrap();
    let room = first.room(&account).await.unwrap();
    let scene = Scene { url: first.url.clone(), api: first, account, room };
    let writer = Writer::start(&scene).await.unwrap();
    writer.more(20).await.unwrap();
    let mut received = Vec::new();
    for n in 0..20 {
        let mut socket = WebSocket::connect(&second.url, &scene.account.token).await.unwrap();
        received.push(joined(&mut socket, &scene.room, n).await.unwrap());
    }
    let stock = Stock::javascript().unwrap();
    let client = stock.connect(&second.url, &scene.account.token, Transports::Upgrade).await.unwrap();
    let answer = client.emit("joinRoom", json!({"roomId": scene.room, "last": 1})).await.unwrap();
    writer.more(20).await.unwrap();
    let history = writer.history(&scene).await.unwrap();
    for messages in received {
        let first = messages[0]["seq"].as_u64().unwrap() as usize;
        assert_eq!(messages, history[first - 1..first - 1 + messages.len()]);
    }
    let expected = &history[answer["lastSeq"].as_u64().unwrap() as usize..];
    let all = async || (client.events("message").len() >= expected.len()).then_some(());
    confab_tests::wait::eventually("every message arrives", std::time::Duration::from_secs(20), all).await.unwrap();
    assert_eq!(client.events("message"), expected);
}

//! Read markers and unread messages: the same on all devices, whatever their gateway.

use std::time::Duration;

use confab_tests::api::{Account, Api, unique};
use confab_tests::plan::Role;
use confab_tests::stock::{Socket, Stock, Transports};
use reqwest::Method;
use serde_json::{Value, json};

use crate::changes::{Scene, at_both_ends};
use crate::world;

const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

at_both_ends!(
    all_devices_have_the_same_marker,
    an_author_has_read_the_own_message,
    a_deleted_message_is_not_unread,
    members_see_who_has_read,
    strangers_have_no_marker,
    levels_decide_what_counts_in_total,
    a_new_member_begins_at_the_own_arrival,
    two_hundred_rooms_are_counted_at_once,
);

async fn unread(api: &Api, who: &Account, room: &str) -> Value {
    let all = api.get("/api/unread", who).await.unwrap().expect(200).unwrap();
    all["rooms"].as_array().unwrap().iter().find(|of| of["roomId"] == room).cloned().unwrap_or_default()
}

/// Waits until the user has this marker and these unread messages, over HTTP.
async fn stands(api: &Api, who: &Account, room: &str, read_seq: u64, messages: u64) {
    let stands = async || {
        let of = unread(api, who, room).await;
        (of["readSeq"] == read_seq && of["unread"] == messages).then_some(()).ok_or(of)
    };
    let started = std::time::Instant::now();
    while let Err(of) = stands().await {
        assert!(started.elapsed() < DELIVERY_LIMIT, "{of} instead of {read_seq}, {messages}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn mark(api: &Api, who: &Account, room: &str, body: Value) -> Value {
    let path = format!("/api/rooms/{room}/read");
    api.call(Method::PUT, &path, Some(who), Some(body)).await.unwrap().expect(200).unwrap()
}

/// Waits for the event `unread` of the room with this marker; returns its unread messages.
async fn shown(socket: &Socket, room: &str, read_seq: u64) -> u64 {
    let is_it = |event: &Value| event["roomId"] == room && event["readSeq"] == read_seq;
    let event = socket.until("unread", DELIVERY_LIMIT, |_| socket.events("unread").into_iter().rfind(is_it));
    event.await.unwrap()["unread"].as_u64().unwrap()
}

async fn all_devices_have_the_same_marker(scene: Scene) {
    let room = &scene.room;
    let (javascript, python) = (Stock::javascript().unwrap(), Stock::python().unwrap());
    let phone = javascript.connect(&scene.one.url, &scene.reader.token, Transports::WebSocket).await.unwrap();
    let laptop = python.connect(&scene.other.url, &scene.reader.token, Transports::Upgrade).await.unwrap();
    let mut seqs = Vec::new();
    for number in 0..4 {
        seqs.push(scene.say(&number.to_string()).await);
    }
    scene.edit(&scene.author, seqs[3], "an edit is not unread").await.expect(200).unwrap();
    stands(&scene.other, &scene.reader, room, seqs[0] - 1, 4).await;

    let marked = phone.emit("read", json!({"roomId": room, "seq": seqs[1]})).await.unwrap();
    assert_eq!((&marked["ok"], &marked["readSeq"], &marked["unread"]), (&json!(true), &json!(seqs[1]), &json!(2)));
    assert_eq!((shown(&phone, room, seqs[1]).await, shown(&laptop, room, seqs[1]).await), (2, 2));
    // A device that lags changes nothing.
    let late = laptop.emit("read", json!({"roomId": room, "seq": seqs[0]})).await.unwrap();
    assert_eq!((&late["readSeq"], &late["unread"]), (&json!(seqs[1]), &json!(2)));
    let marked = mark(&scene.other, &scene.reader, room, json!({"seq": u64::MAX})).await;
    assert_eq!(marked, json!({"readSeq": seqs[3] + 1, "unread": 0}));
    assert_eq!(shown(&phone, room, seqs[3] + 1).await, 0);
    let back = mark(&scene.one, &scene.reader, room, json!({"seq": seqs[0], "unread": true})).await;
    assert_eq!(back, json!({"readSeq": seqs[0], "unread": 3}));
    assert_eq!(shown(&laptop, room, seqs[0]).await, 3);
    stands(&scene.other, &scene.reader, room, seqs[0], 3).await;
    let room_json = scene.one.get(&format!("/api/rooms/{room}"), &scene.reader).await.unwrap().expect(200).unwrap();
    let notify = json!({"level": "all", "until": null});
    let shown = (&room_json["readSeq"], &room_json["unread"], &room_json["notify"]);
    assert_eq!(shown, (&json!(seqs[0]), &json!(3), &notify));
    let listed = scene.one.get("/api/rooms?mine=true", &scene.reader).await.unwrap().expect(200).unwrap();
    assert_eq!((&listed["items"][0]["readSeq"], &listed["items"][0]["unread"]), (&json!(seqs[0]), &json!(3)));
    for refused in [json!({"roomId": room}), json!({"roomId": room, "seq": -1}), json!({"roomId": "x", "seq": 1})] {
        let refused = phone.emit("read", refused).await.unwrap();
        assert_eq!(refused["error"]["code"], "invalid_request", "{refused}");
    }
}

async fn an_author_has_read_the_own_message(scene: Scene) {
    let socket = Stock::javascript().unwrap();
    let socket = socket.connect(&scene.other.url, &scene.author.token, Transports::WebSocket).await.unwrap();
    let first = scene.say("over HTTP").await;
    stands(&scene.other, &scene.author, &scene.room, first, 0).await;
    let sent = socket.emit("message", json!({"roomId": scene.room, "content": "over a socket"})).await.unwrap();
    let second = sent["message"]["seq"].as_u64().unwrap();
    assert_eq!(sent["message"]["ordinal"], 2);
    stands(&scene.one, &scene.author, &scene.room, second, 0).await;
    stands(&scene.one, &scene.reader, &scene.room, first - 1, 2).await;
}

async fn a_deleted_message_is_not_unread(scene: Scene) {
    let (first, second) = (scene.say("1").await, scene.say("2").await);
    stands(&scene.other, &scene.reader, &scene.room, first - 1, 2).await;
    scene.delete(&scene.author, first).await.expect(200).unwrap();
    stands(&scene.other, &scene.reader, &scene.room, first - 1, 1).await;
    let marked = mark(&scene.one, &scene.reader, &scene.room, json!({"seq": first})).await;
    assert_eq!(marked, json!({"readSeq": first, "unread": 1}));
    scene.delete(&scene.author, second).await.expect(200).unwrap();
    stands(&scene.one, &scene.reader, &scene.room, first, 0).await;
}

async fn members_see_who_has_read(scene: Scene) {
    let stock = Stock::javascript().unwrap();
    let owner = stock.connect(&scene.other.url, &scene.owner.token, Transports::WebSocket).await.unwrap();
    let joined = owner.emit("joinRoom", json!(scene.room)).await.unwrap();
    assert_eq!(joined["lastOrdinal"], 0, "{joined}");
    let seq = scene.say("read this").await;
    mark(&scene.one, &scene.reader, &scene.room, json!({"seq": seq})).await;
    let of_reader = |event: &Value| {
        let mut reads = event["reads"].as_array().into_iter().flatten();
        reads.any(|read| read["userId"] == scene.reader.id.as_str() && read["seq"] == seq)
    };
    let events = || owner.events("read").into_iter().find(of_reader);
    owner.until("a receipt", DELIVERY_LIMIT, |_| events()).await.unwrap();
    let path = format!("/api/rooms/{}/reads", scene.room);
    let reads = scene.other.get(&path, &scene.owner).await.unwrap().expect(200).unwrap();
    let items = reads["items"].as_array().unwrap();
    let of = |who: &Account| items.iter().find(|item| item["user"]["id"] == who.id.as_str()).unwrap();
    assert_eq!((items.len(), &of(&scene.reader)["seq"]), (3, &json!(seq)));
    assert!(of(&scene.reader)["at"].is_string() && of(&scene.owner)["at"].is_null(), "{reads}");
    let stranger = scene.one.signup().await.unwrap();
    scene.one.get(&path, &stranger).await.unwrap().expect(404).unwrap();
}

async fn strangers_have_no_marker(scene: Scene) {
    let stranger = scene.one.signup().await.unwrap();
    let public = scene.one.room(&scene.owner).await.unwrap();
    let socket = Stock::javascript().unwrap();
    let socket = socket.connect(&scene.other.url, &stranger.token, Transports::WebSocket).await.unwrap();
    let unknown = uuid::Uuid::now_v7().to_string();
    for (room, code, status) in
        [(&public, "forbidden", 403), (&scene.room, "not_found", 404), (&unknown, "not_found", 404)]
    {
        let refused = socket.emit("read", json!({"roomId": room, "seq": 1})).await.unwrap();
        assert_eq!(refused["error"]["code"], code, "{refused}");
        for (path, body) in [
            ("read", json!({"seq": 1})),
            ("read", json!({"seq": 1, "unread": true})),
            ("notify", json!({"level": "none"})),
        ] {
            let path = format!("/api/rooms/{room}/{path}");
            let refused = scene.one.call(Method::PUT, &path, Some(&stranger), Some(body)).await.unwrap();
            refused.expect(status).unwrap();
        }
    }
    assert_eq!(scene.one.get("/api/unread", &stranger).await.unwrap().expect(200).unwrap()["rooms"], json!([]));
}

async fn levels_decide_what_counts_in_total(scene: Scene) {
    let seq = scene.say("1").await;
    stands(&scene.one, &scene.reader, &scene.room, seq - 1, 1).await;
    let path = format!("/api/rooms/{}/notify", scene.room);
    let set = async |body: Value, status| {
        scene.one.call(Method::PUT, &path, Some(&scene.reader), Some(body)).await.unwrap().expect(status).unwrap()
    };
    let total = async || {
        let all = scene.other.get("/api/unread", &scene.reader).await.unwrap().expect(200).unwrap();
        (all["total"].as_u64().unwrap(), all["rooms"][0]["notify"]["level"].clone())
    };
    assert_eq!(total().await, (1, json!("all")));
    set(json!({"level": "none"}), 204).await;
    assert_eq!(total().await, (0, json!("none")));
    set(json!({"level": "mentions", "until": "2999-01-01T00:00:00Z"}), 204).await;
    assert_eq!(total().await, (0, json!("mentions")));
    // A time in the past has ended already.
    set(json!({"level": "none", "until": "2020-01-01T00:00:00Z"}), 204).await;
    assert_eq!(total().await, (1, json!("all")));
    for invalid in [json!({"level": "loud"}), json!({}), json!({"level": "all", "until": "tomorrow"})] {
        set(invalid, 400).await;
    }
}

async fn a_new_member_begins_at_the_own_arrival(scene: Scene) {
    scene.say("before").await;
    let (api, new) = (&scene.other, scene.one.signup().await.unwrap());
    let member = format!("/api/rooms/{}/members/{}", scene.room, new.id);
    api.call(Method::PUT, &member, Some(&scene.owner), Some(json!({}))).await.unwrap().expect(201).unwrap();
    let of = unread(api, &new, &scene.room).await;
    assert_eq!((&of["unread"], &of["readSeq"]), (&json!(0), &of["lastSeq"]), "{of}");
    let seq = scene.say("after").await;
    stands(api, &new, &scene.room, seq - 1, 1).await;
    let of = unread(api, &new, &scene.room).await;
    assert!(of["lastMessageAt"].is_string() && of["mentions"] == 0, "{of}");
    api.call(Method::DELETE, &member, Some(&scene.owner), None).await.unwrap().expect(204).unwrap();
    assert_eq!(unread(api, &new, &scene.room).await, Value::Null);
}

async fn two_hundred_rooms_are_counted_at_once(scene: Scene) {
    let reader = scene.one.signup().await.unwrap();
    let create = async |number: usize| {
        let new = json!({"name": unique(&format!("many-{number}"))});
        let room = scene.one.post("/api/rooms", &reader, new).await?.expect(201)?;
        let path = format!("/api/rooms/{}/messages", room["id"].as_str().unwrap_or_default());
        scene.one.post(&path, &scene.author, json!({"content": "x"})).await?.expect(201)
    };
    let rooms: usize = 200;
    for number in 0..rooms {
        create(number).await.unwrap();
    }
    let all = scene.other.get("/api/unread", &reader).await.unwrap().expect(200).unwrap();
    assert_eq!((all["rooms"].as_array().unwrap().len(), &all["total"]), (rooms, &json!(rooms)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_move_while_redis_is_away() {
    let cluster = world::breakable().await;
    let [one, other] = <[Api; 2]>::try_from(world::gateways(&cluster)).map_err(|_| "two gateways").unwrap();
    let (owner, reader) = (one.signup().await.unwrap(), one.signup().await.unwrap());
    let room = one.room(&owner).await.unwrap();
    let member = format!("/api/rooms/{room}/members/me");
    one.call(Method::PUT, &member, Some(&reader), None).await.unwrap().expect(201).unwrap();
    let socket = Stock::javascript().unwrap();
    let socket = socket.connect(&one.url, &reader.token, Transports::WebSocket).await.unwrap();
    cluster.kill((Role::Redis, 1)).await.unwrap();
    let path = format!("/api/rooms/{room}/messages");
    let sent = one.post(&path, &owner, json!({"content": "x"})).await.unwrap().expect(201).unwrap();
    let seq = sent["seq"].as_u64().unwrap();
    stands(&other, &reader, &room, seq - 1, 1).await;
    let marked = socket.emit("read", json!({"roomId": room, "seq": seq})).await.unwrap();
    assert_eq!((&marked["readSeq"], &marked["unread"]), (&json!(seq), &json!(0)), "{marked}");
    assert_eq!(shown(&socket, &room, seq).await, 0);
    stands(&other, &reader, &room, seq, 0).await;
    cluster.up().await.unwrap();
}

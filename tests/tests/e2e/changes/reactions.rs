//! Reactions: states with exact counts, the same for all clients, and cheap in a storm.

use std::time::Duration;

use confab_tests::raw::{Client, WebSocket};

use super::*;

at_both_ends!(
    reactions_are_states_with_exact_counts,
    refusals_are_those_of_the_contract,
    events_and_pages_agree,
    a_deleted_message_has_no_reactions,
    a_storm_is_a_few_events,
);

fn reactions(scene: &Scene, seq: u64, name: &str) -> String {
    scene.path(&format!("/{seq}/reactions/{name}"))
}

async fn react(scene: &Scene, api: &Api, who: &Account, (seq, name): (u64, &str), on: bool) -> Answer {
    let method = if on { Method::PUT } else { Method::DELETE };
    api.call(method, &reactions(scene, seq, name), Some(who), None).await.unwrap()
}

async fn joined(scene: &Scene, api: &Api, who: &Account, argument: Value) -> (WebSocket, Value) {
    let mut socket = WebSocket::connect(&api.url, &who.token).await.unwrap();
    let mut join = json!({"roomId": scene.room});
    join.as_object_mut().unwrap().extend(argument.as_object().unwrap().clone());
    let ack = socket.emit("joinRoom", join).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    (socket, ack)
}

async fn reactions_are_states_with_exact_counts(scene: Scene) {
    let seq = scene.say("tea").await;
    let head = scene.last_seq().await;
    for _ in 0..2 {
        let set = react(&scene, &scene.one, &scene.reader, (seq, "%F0%9F%91%8D"), true).await.expect(200).unwrap();
        assert_eq!(set, json!({"reactions": [{"name": "👍", "count": 1, "mine": true}]}));
    }
    assert_eq!(scene.last_seq().await, head + 1, "what changes nothing writes nothing");
    let set = react(&scene, &scene.other, &scene.owner, (seq, "%F0%9F%91%8D"), true).await.expect(200).unwrap();
    assert_eq!(set["reactions"][0]["count"], 2);
    let path = scene.path(&format!("/{seq}"));
    for (who, mine) in [(&scene.reader, true), (&scene.author, false)] {
        let message = scene.other.call(Method::GET, &path, Some(who), None).await.unwrap().expect(200).unwrap();
        assert_eq!(message["reactions"], json!([{"name": "👍", "count": 2, "mine": mine}]));
        assert_eq!(message["revision"], head + 2);
        let page = scene.call(&scene.one, Method::GET, who, "?limit=1", None).await.expect(200).unwrap();
        assert_eq!(page["items"][0]["reactions"], message["reactions"]);
    }
    let list = scene.other.call(Method::GET, &format!("{path}/reactions?limit=1"), Some(&scene.author), None).await;
    let list = list.unwrap().expect(200).unwrap();
    assert_eq!(list["items"][0]["user"]["id"], scene.reader.id.as_str());
    let next = format!("{path}/reactions?limit=1&cursor={}", list["nextCursor"].as_str().unwrap());
    let list = scene.one.call(Method::GET, &next, Some(&scene.author), None).await.unwrap().expect(200).unwrap();
    assert_eq!((&list["items"][0]["user"]["id"], &list["nextCursor"]), (&json!(scene.owner.id), &Value::Null));
    let ended = react(&scene, &scene.one, &scene.reader, (seq, "%F0%9F%91%8D"), false).await.expect(200).unwrap();
    assert_eq!(ended, json!({"reactions": [{"name": "👍", "count": 1, "mine": false}]}));
}

async fn refusals_are_those_of_the_contract(scene: Scene) {
    let seq = scene.say("tea").await;
    for n in 0..20 {
        react(&scene, &scene.one, &scene.author, (seq, &format!("name-{n}")), true).await.expect(200).unwrap();
    }
    fails(&react(&scene, &scene.other, &scene.author, (seq, "one-more"), true).await, 409, "conflict");
    fails(&react(&scene, &scene.one, &scene.author, (seq, &"x".repeat(65)), true).await, 400, "invalid_request");
    fails(&react(&scene, &scene.one, &scene.author, (99_999, "x"), true).await, 404, "not_found");
    let stranger = scene.one.signup().await.unwrap();
    fails(&react(&scene, &scene.one, &stranger, (seq, "x"), true).await, 404, "not_found");
    let other = format!("{}?id={}", reactions(&scene, seq, "name-0"), uuid::Uuid::now_v7());
    let other = scene.one.call(Method::PUT, &other, Some(&scene.author), None).await.unwrap();
    fails(&other, 409, "conflict");
    scene.delete(&scene.author, seq).await.expect(200).unwrap();
    fails(&react(&scene, &scene.one, &scene.author, (seq, "name-0"), true).await, 409, "conflict");
}

async fn events_and_pages_agree(scene: Scene) {
    let seq = scene.say("tea").await;
    let (mut reader, _) = joined(&scene, &scene.other, &scene.reader, json!({"after": seq})).await;
    let (mut author, _) = joined(&scene, &scene.one, &scene.author, json!({})).await;
    let of = |name: &str, on: bool| json!({"roomId": scene.room, "seq": seq, "name": name, "on": on});
    let set = author.emit("react", of("a", true)).await.unwrap();
    assert_eq!(set, json!({"ok": true, "reactions": [{"name": "a", "count": 1, "mine": true}]}));
    reader.emit("react", of("b", true)).await.unwrap();
    let again = reader.emit("react", of("a", true)).await.unwrap();
    let counts = json!([{"name": "a", "count": 2}, {"name": "b", "count": 1}]);
    assert_eq!(again["reactions"][0]["count"], 2);
    let mut last = Value::Null;
    while last["reactions"] != counts {
        last = reader.event("reaction").await.unwrap();
        assert_eq!((&last["roomId"], &last["target"]), (&json!(scene.room), &json!(seq)));
        assert_eq!(last["message"]["revision"], last["seq"], "{last}");
    }
    // A client that was away gets the message, and its own names.
    let (_, ack) = joined(&scene, &scene.one, &scene.reader, json!({"after": seq})).await;
    assert_eq!((&ack["changed"][0]["reactions"], &ack["messages"]), (&counts, &json!([])), "{ack}");
    assert_eq!(ack["mine"], json!([{"seq": seq, "names": ["a", "b"]}]));
    let raw = scene.call(&scene.other, Method::GET, &scene.author, &format!("?events=true&after={seq}"), None).await;
    let raw = raw.expect(200).unwrap();
    let items = raw["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["op"] == "react" && item["changes"][0]["on"] == true), "{raw}");
    let changes = items.iter().map(|item| item["changes"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!(changes, 3);
}

async fn a_deleted_message_has_no_reactions(scene: Scene) {
    let seq = scene.say("tea").await;
    react(&scene, &scene.one, &scene.author, (seq, "x"), true).await.expect(200).unwrap();
    let deleted = scene.delete(&scene.author, seq).await.expect(200).unwrap();
    assert_eq!(deleted["reactions"], json!([]));
    let list = scene.call(&scene.one, Method::GET, &scene.author, &format!("/{seq}/reactions"), None).await;
    assert_eq!(list.expect(200).unwrap(), json!({"items": [], "nextCursor": null}));
}

async fn a_storm_is_a_few_events(scene: Scene) {
    let seq = scene.say("tea").await;
    let head = scene.last_seq().await;
    // Each user sets and ends 18 names, 6 in turn, and keeps the last 6.
    let act = async |who: &Account| {
        let mut socket = joined(&scene, &scene.one, who, json!({})).await.0;
        for name in 0..18 {
            for on in [true, name >= 12] {
                let argument = json!({"roomId": scene.room, "seq": seq, "name": format!("{}", name % 6), "on": on});
                assert_eq!(socket.emit("react", argument).await.unwrap()["ok"], true);
            }
        }
    };
    let begun = std::time::Instant::now();
    tokio::join!(act(&scene.owner), act(&scene.author), act(&scene.reader));
    let most = begun.elapsed().as_millis() as u64 / 100 + 2;
    assert!(begun.elapsed() < Duration::from_secs(60));
    let events = scene.last_seq().await - head;
    assert!(events <= most, "{events} events, at most {most}");
    let message = scene.history().await.pop().unwrap();
    let counts = message["reactions"].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap());
    assert_eq!(counts.collect::<Vec<_>>(), [3; 6]);
}

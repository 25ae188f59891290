//! Every client receives the changes of messages as events with numbers of the room, whatever its gateway and language.

use std::time::Duration;

use confab_tests::raw::{Client, WebSocket};
use confab_tests::stock::{Report, Socket, Stock, Transports};

use super::*;

const DELIVERY_LIMIT: Duration = Duration::from_secs(20);

at_both_ends!(
    all_clients_receive_the_same_changes,
    changes_of_a_socket_keep_their_order,
    concurrent_edits_end_equal_everywhere,
    a_recovered_client_receives_the_missed_changes,
);

/// Returns the live events of the room with their names, in order of arrival.
fn events(reports: &[Report], room: &str) -> Vec<(String, Value)> {
    let event = |report: &Report| match report {
        Report::Event(name, arguments) if arguments[0]["roomId"] == room => Some((name.clone(), arguments[0].clone())),
        _ => None,
    };
    reports.iter().filter_map(event).collect()
}

/// Waits for the events of the room up to this seq.
async fn events_up_to(socket: &Socket, room: &str, seq: u64) -> Vec<(String, Value)> {
    let all = |reports: &[Report]| {
        let events = events(reports, room);
        events.last().is_some_and(|(_, event)| event["seq"] == seq).then_some(events)
    };
    socket.until(&format!("the event {seq}"), DELIVERY_LIMIT, all).await.unwrap()
}

/// Connects a raw client at an end, which joins the room.
async fn joined(scene: &Scene, api: &Api, who: &Account) -> WebSocket {
    let mut socket = WebSocket::connect(&api.url, &who.token).await.unwrap();
    let ack = socket.emit("joinRoom", json!(scene.room)).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    socket
}

async fn all_clients_receive_the_same_changes(scene: Scene) {
    let (javascript, python) = (Stock::javascript().unwrap(), Stock::python().unwrap());
    let owner = javascript.connect(&scene.one.url, &scene.owner.token, Transports::WebSocket).await.unwrap();
    let author = python.connect(&scene.other.url, &scene.author.token, Transports::Upgrade).await.unwrap();
    let mut reader = joined(&scene, &scene.other, &scene.reader).await;
    for socket in [&owner, &author] {
        assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    }
    let seq = scene.say("tea").await;
    let of = |rest: Value| {
        let mut argument = json!({"roomId": scene.room, "seq": seq});
        argument.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        argument
    };
    let edit = of(json!({"content": "green tea", "clientMessageId": "edit-1"}));
    let edited = author.emit("edit", edit.clone()).await.unwrap();
    assert_eq!((&edited["message"]["content"], &edited["duplicate"]), (&json!("green tea"), &json!(false)));
    let again = author.emit("edit", edit).await.unwrap();
    assert_eq!((&again["message"], &again["duplicate"]), (&edited["message"], &json!(true)));
    for on in [true, true, false] {
        let pinned = owner.emit("pin", of(json!({"on": on}))).await.unwrap();
        assert_eq!((&pinned["ok"], &pinned["message"]["pinned"]), (&json!(true), &json!(on)), "{pinned}");
    }
    scene.edit(&scene.author, seq, "black tea").await.expect(200).unwrap();
    for _ in 0..2 {
        let removed = author.emit("remove", of(json!({}))).await.unwrap();
        assert_eq!((&removed["message"]["deleted"], &removed["message"]["content"]), (&json!(true), &json!("")));
    }
    for (socket, argument, code) in [
        (&owner, of(json!({"content": "x"})), "forbidden"),
        (&author, of(json!({"content": "x"})), "conflict"),
        (&author, of(json!({"content": "x", "seq": 99_999})), "not_found"),
    ] {
        let refused = socket.emit("edit", argument).await.unwrap();
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    let refused = owner.emit("pin", of(json!({"on": true}))).await.unwrap();
    assert_eq!(refused["error"]["code"], "conflict", "a deleted message cannot be pinned: {refused}");

    let seen = events_up_to(&owner, &scene.room, seq + 5).await;
    let names = seen.iter().map(|(name, event)| (&**name, event["op"].as_str())).collect::<Vec<_>>();
    let updated = |op| ("messageUpdated", Some(op));
    let deleted = ("messageDeleted", Some("delete"));
    assert_eq!(names, [("message", None), updated("edit"), updated("pin"), updated("unpin"), updated("edit"), deleted]);
    let by = seen[1..].iter().map(|(_, event)| event["by"]["id"].as_str().unwrap()).collect::<Vec<_>>();
    let (author_id, owner_id) = (&*scene.author.id, &*scene.owner.id);
    assert_eq!(by, [author_id, owner_id, owner_id, author_id, author_id]);
    // A late event may show a newer state; what a client holds in the end is the same.
    let history = scene.history().await;
    let held = |events: &[(String, Value)]| {
        let mut held = Held { seq: seq - 1, ..Held::default() };
        events.iter().for_each(|(name, event)| held.receive(name, event));
        held.list()
    };
    assert_eq!(held(&seen), history[history.len() - 1..]);
    assert_eq!(held(&events_up_to(&author, &scene.room, seq + 5).await), held(&seen));
    reader.event("messageDeleted").await.unwrap();
    // The event before the last one has been received, too.
    let received = reader.taken_events();
    assert_eq!(received.len(), 5, "{received:?}");
    assert_eq!(received.last().unwrap().1["message"]["seq"], seq);
}

async fn changes_of_a_socket_keep_their_order(scene: Scene) {
    let seq = scene.say("0").await;
    let mut author = joined(&scene, &scene.other, &scene.author).await;
    let edits = (1..=50).map(|number| json!({"roomId": scene.room, "seq": seq, "content": number.to_string()}));
    let numbers = author.emit_all("edit", &edits.collect::<Vec<_>>()).await.unwrap();
    let message = author.emit_later("message", &json!({"roomId": scene.room, "content": "after"})).await.unwrap();
    let mut last = seq;
    for number in numbers {
        let ack = author.ack(number).await.unwrap();
        assert_eq!(ack["ok"], true, "{ack}");
        last += 1;
    }
    let sent = author.ack(message).await.unwrap();
    assert_eq!(sent["message"]["seq"], last + 1, "a message follows the changes before it");
    let versions = scene.call(&scene.one, Method::GET, &scene.author, &format!("/{seq}/versions"), None).await;
    let versions = versions.expect(200).unwrap();
    let texts = versions["items"].as_array().unwrap().iter().map(|version| version["content"].clone());
    assert_eq!(texts.collect::<Vec<_>>(), (0..=50).map(|number| json!(number.to_string())).collect::<Vec<_>>());
}

async fn concurrent_edits_end_equal_everywhere(scene: Scene) {
    let mut watchers = Vec::new();
    for (api, who) in [(&scene.one, &scene.owner), (&scene.other, &scene.reader)] {
        watchers.push(joined(&scene, api, who).await);
    }
    let seq = scene.say("tea").await;
    let (mut one, mut other) =
        (joined(&scene, &scene.one, &scene.author).await, joined(&scene, &scene.other, &scene.author).await);
    let edits = |name: &str| {
        let edit = |number: u32| json!({"roomId": scene.room, "seq": seq, "content": format!("{name} {number}")});
        (0..30).map(edit).collect::<Vec<_>>()
    };
    let (phone, laptop) = (edits("phone"), edits("laptop"));
    let (phone, laptop) = tokio::join!(one.emit_all("edit", &phone), other.emit_all("edit", &laptop));
    let mut revisions = Vec::new();
    for (socket, numbers) in [(&mut one, phone.unwrap()), (&mut other, laptop.unwrap())] {
        for number in numbers {
            let ack = socket.ack(number).await.unwrap();
            assert_eq!(ack["ok"], true, "{ack}");
            revisions.push(ack["message"]["revision"].as_u64().unwrap());
        }
    }
    let last = seq + 60;
    assert!(revisions.iter().all(|revision| (seq + 1..=last).contains(revision)), "{revisions:?}");
    let history = scene.history().await;
    let message = history.last().unwrap();
    assert_eq!((&message["seq"], &message["revision"]), (&json!(seq), &json!(last)));
    for mut watcher in watchers {
        let mut held = Held { seq: seq - 1, ..Held::default() };
        while held.seq < last {
            for (name, event) in watcher.taken_events() {
                held.receive(&name, &event);
            }
            if held.seq < last {
                watcher.fill().await.unwrap();
            }
        }
        assert_eq!(held.list(), std::slice::from_ref(message));
    }
}

async fn a_recovered_client_receives_the_missed_changes(scene: Scene) {
    let stock = Stock::javascript().unwrap();
    let auth = json!({"token": scene.reader.token, "recovery": true});
    let options = json!({"auth": auth, "transports": ["websocket"], "reconnection": false});
    let socket = stock.open(&scene.other.url, options);
    socket.state("connect").await.unwrap();
    let (first, second) = (scene.say("tea").await, scene.say("coffee").await);
    assert_eq!(socket.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let third = scene.say("milk").await;
    events_up_to(&socket, &scene.room, third).await;
    socket.cut();
    socket.state("disconnect").await.unwrap();
    scene.edit(&scene.author, first, "green tea").await.expect(200).unwrap();
    scene.pin(&scene.owner, third, true).await.expect(200).unwrap();
    let fourth = scene.say("sugar").await;
    scene.edit(&scene.author, first, "black tea").await.expect(200).unwrap();
    scene.delete(&scene.owner, second).await.expect(200).unwrap();
    socket.reconnect();
    assert_eq!(socket.states("connect", 2).await.unwrap()["recovered"], true);
    let live = scene.edit(&scene.author, fourth, "honey").await.expect(200).unwrap()["revision"].as_u64().unwrap();
    let events = events_up_to(&socket, &scene.room, live).await;
    let seqs = events.iter().map(|(_, event)| event["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, (third..=live).collect::<Vec<_>>(), "each number once");
    let names = events.iter().map(|(name, _)| &**name).collect::<Vec<_>>();
    let (updated, deleted) = ("messageUpdated", "messageDeleted");
    assert_eq!(names, ["message", updated, updated, "message", updated, deleted, updated]);
    // What the client held before, and the events, make up the history.
    let mut held = Held::default();
    let page = scene.call(&scene.one, Method::GET, &scene.reader, &format!("?before={third}"), None).await;
    held.add(&page.expect(200).unwrap()["items"]);
    held.seq = third - 1;
    events.iter().for_each(|(name, event)| held.receive(name, event));
    assert_eq!(held.list(), scene.history().await);
}

use confab_proto::message::v1::Op;
use serde_json::{Value, json};

use crate::chat::testing::{Client, World};
use crate::testing::bus;
use crate::testing::services::ROOM;

/// The acknowledgement with this number.
async fn ack(client: &mut Client, number: u64) -> Value {
    let begin = format!("43{number}[");
    client.receives(&begin).await;
    let packet = client.received.iter().find(|packet| packet.starts_with(&begin)).unwrap();
    serde_json::from_str::<Value>(&packet[begin.len() - 1..]).unwrap()[0].take()
}

#[tokio::test]
async fn changes_of_messages_are_acknowledged_and_keep_their_order() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    for (number, event, rest) in [
        (1, "message", json!({"content": "tea"})),
        (2, "edit", json!({"seq": 3, "content": "milk"})),
        (3, "pin", json!({"seq": 3, "on": true})),
        (4, "remove", json!({"seq": 3})),
        (5, "edit", json!({"seq": 0, "content": "milk"})),
    ] {
        let mut argument = rest;
        argument["roomId"] = json!(ROOM);
        client.emit(&format!("42{number}{}", json!([event, argument])));
    }
    let sent = ack(&mut client, 1).await;
    assert_eq!((&sent["message"]["content"], &sent["duplicate"]), (&json!("tea"), &json!(false)));
    let edited = ack(&mut client, 2).await;
    assert_eq!((&edited["message"]["content"], &edited["message"]["seq"]), (&json!("milk"), &json!(3)));
    assert_eq!((&edited["ok"], &edited["duplicate"]), (&json!(true), &json!(true)));
    for number in [3, 4] {
        let changed = ack(&mut client, number).await;
        let fields = changed.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!((fields, &changed["ok"]), (vec!["message", "ok"], &json!(true)));
        assert_eq!(changed["message"]["seq"], 3);
    }
    let refused = ack(&mut client, 5).await;
    assert_eq!((&refused["ok"], &refused["error"]["code"]), (&json!(false), &json!("invalid_request")));
    let appended = world.log.appends.lock().concat();
    let ops = appended.iter().map(|event| event.change.as_ref().map(|change| change.op())).collect::<Vec<_>>();
    assert_eq!(ops, [None, Some(Op::Edit), Some(Op::Pin), Some(Op::Delete)]);
    assert!(appended.iter().all(|event| event.sender == appended[0].sender && !event.credential.is_empty()));
}

#[tokio::test]
async fn changes_count_as_messages_for_the_limit() {
    let world = World::with(bus(), &["--limit-send", "2,1/h"], 300).await;
    let mut client = world.member().await;
    for number in 1..=3 {
        let remove = json!(["remove", {"roomId": ROOM, "seq": 3}]);
        client.emit(&format!("42{number}{remove}"));
    }
    assert_eq!([ack(&mut client, 1).await["ok"].clone(), ack(&mut client, 2).await["ok"].clone()], [true, true]);
    let limited = ack(&mut client, 3).await;
    assert_eq!(limited["error"]["code"], "rate_limited");
    assert!(limited["error"]["retryAfterMs"].is_u64(), "{limited}");
}

#[tokio::test]
async fn a_reaction_is_acknowledged_with_the_reactions_of_its_message() {
    let world = World::new(bus()).await;
    let mut client = world.member().await;
    for (number, rest) in [
        (1, json!({"roomId": ROOM, "seq": 3, "name": "👍", "on": true})),
        (2, json!({"roomId": ROOM, "seq": 3, "name": "..", "on": true})),
        (3, json!({"roomId": ROOM, "seq": 3, "name": "x"})),
    ] {
        client.emit(&format!("42{number}{}", json!(["react", rest])));
    }
    let set = ack(&mut client, 1).await;
    assert_eq!(set, json!({"ok": true, "reactions": [{"name": "👍", "count": 2, "mine": true}]}));
    for (number, detail) in [(2, "name must be neither . nor .."), (3, "on must be given")] {
        let refused = ack(&mut client, number).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["detail"]),
            (&json!("invalid_request"), &json!(detail))
        );
    }
    let appended = world.log.appends.lock().concat();
    let [event] = &*appended else { panic!("{appended:?}") };
    let change = event.change.as_ref().unwrap();
    assert_eq!(
        (change.op(), &*change.name, change.on, event.client_message_id.is_none()),
        (Op::React, "👍", true, true)
    );
}

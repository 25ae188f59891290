use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::File;
use confab_proto::message::v1::{Change, Event, Kind, Op, State};

use super::*;

#[test]
fn messages_match_the_contract() {
    let mut event = Event {
        id: "m".into(),
        room_id: "r".into(),
        seq: 7,
        kind: Kind::Message.into(),
        sender: Some(UserRef { id: "u".into(), username: "Zoë".into() }),
        content: "hi\n".into(),
        created_at_ms: 1_795_382_645_120,
        ordinal: Some(5),
        ..Event::default()
    };
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    assert_eq!(
        json,
        r#"{"id":"m","roomId":"r","seq":7,"type":"message","sender":{"id":"u","username":"Zoë"},"content":"hi\n","files":[],"clientMessageId":null,"createdAt":"2026-11-22T21:24:05.120Z","ordinal":5,"revision":7,"editedAt":null,"deleted":false,"deletedBy":null,"pinned":false,"reactions":[],"data":{}}"#
    );
    event.message_data = r#"{ "b": 1.0, "a": "}" }"#.into();
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    assert!(json.ends_with(r#","data":{ "b": 1.0, "a": "}" }}"#), "{json}");
    event.message_data.clear();
    event.kind = Kind::File.into();
    event.files = vec![
        File {
            id: "f".into(),
            name: "a.png".into(),
            size: 5,
            content_type: "image/png".into(),
            sha256: "00".into(),
            uploaded_by: event.sender.clone(),
            ..File::default()
        },
        File { id: "g".into(), name: "b".into(), size: 7, deleted: true, ..File::default() },
    ];
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let present = r#"{"id":"f","name":"a.png","size":5,"contentType":"image/png","sha256":"00","url":"/api/files/f","roomId":null,"uploadedBy":{"id":"u","username":"Zoë"},"createdAt":"1970-01-01T00:00:00.000Z"}"#;
    let files = format!(
        r#""type":"file","sender":{{"id":"u","username":"Zoë"}},"content":"hi\n","files":[{present},{{"id":"g","name":"b","deleted":true}}]"#
    );
    assert!(json.contains(&files), "{json}");
    event.kind = Kind::System.into();
    event.event = "roomUpdated".into();
    event.data = r#"{"name":"Tea"}"#.into();
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let by = r#"{"id":"u","username":"Zoë"}"#;
    let left = format!(r#"{{"user":{{"id":"v","username":"bob"}},"role":"member","by":{by}}}"#);
    let member_left = Event { event: "memberLeft".into(), data: left.clone(), ..event.clone() };
    let text = serde_json::to_string(&MessageJson::from(&member_left)).unwrap();
    assert!(text.ends_with(&format!(r#""event":"memberLeft","data":{left}}}"#)), "{text}");
    assert!(
        json.contains(r#""type":"system""#) && json.ends_with(r#""event":"roomUpdated","data":{"name":"Tea"}}"#),
        "{json}"
    );
}

#[test]
fn a_changed_message_shows_its_state() {
    let ada = UserRef { id: "u".into(), username: "ada".into() };
    let state = State { revision: 9, edited_at_ms: Some(1), deleted_by: None, pinned: true, reactions: Vec::new() };
    let mut event = Event { seq: 7, state: Some(state), ..Event::default() };
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let edited = r#""revision":9,"editedAt":"1970-01-01T00:00:00.001Z","deleted":false,"deletedBy":null,"pinned":true,"reactions":[],"data":{}}"#;
    assert!(json.ends_with(edited), "{json}");
    event.state = Some(State { revision: 9, deleted_by: Some(ada.clone()), ..State::default() });
    let json = serde_json::to_string(&MessageJson::from(&event)).unwrap();
    let deleted = r#""revision":9,"editedAt":null,"deleted":true,"deletedBy":{"id":"u","username":"ada"},"pinned":false,"reactions":[],"data":{}}"#;
    assert!(json.ends_with(deleted), "{json}");

    let change = Some(Box::new(Change {
        target: 7,
        op: Op::Unpin.into(),
        message: None,
        reactions: Vec::new(),
        after: Vec::new(),
    }));
    let event = Event { id: "c".into(), seq: 9, kind: Kind::Change.into(), sender: Some(ada), change, ..event };
    let json = serde_json::to_string(&ItemJson::from(&event)).unwrap();
    let item = r#"{"seq":9,"id":"c","type":"change","op":"unpin","target":7,"sender":{"id":"u","username":"ada"},"createdAt":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!(json, item);
}
